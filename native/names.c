/* names.c - what programs asked for, and what they were given
 *
 * Theory of operation: a name says that a socket (SO_COOKIE) which asked for one address was given another.
 * Names are kept where somebody needs them later:
 *   - datagrams to the same address go to the same endpoint, as long as that serves (send.c);
 *   - a transparent service is told the address that it asked for (told.c, receive.c);
 *   - a connected UDP socket gets another endpoint when its own has left the route table (below).
 * A name is found by what was asked, or by what was given: so one that is out of date, because the socket has
 * been connected elsewhere since, is simply not found. Only a connect() to the endpoint itself has to end it.
 * Such a call is noticed by a bit for the hash of each address that was ever given; it is looked at further
 * only where that is set.
 *
 * Nobody tells the agent that a socket is no more. So the table is a cache: sets of WAYS, chosen by the cookie;
 * in a full set the name that was used longest ago makes room.
 *
 * Pinning again: when a route table is replaced, pinned names (connected UDP sockets) are gone through, a few
 * a turn of the loop. Where the route leads elsewhere now, the socket is taken up by the process and fd that
 * connected it, and connected to an endpoint that serves. A plain connect() keeps its port; only where that
 * fails, because the source address does not reach the new endpoint, is it disconnected first. Under another
 * process or number a socket is not looked for.
 *
 * Limits: MFD_NAMES_MAX names, WAYS a socket; past that a socket is told the endpoint, and its datagrams may
 * go to another one.
 * Source: socket(7) SO_COOKIE, udp(7), net/ipv4/datagram.c (__ip4_datagram_connect). */
#include <sys/socket.h>

#include "meshfd.h"

#define WAYS 16
#define SETS (MFD_NAMES_MAX / WAYS)
#define REPIN_STEP 64 /* pinned names in one turn of the loop */

_Static_assert(SETS > 0 && (SETS & (SETS - 1)) == 0, "sets are chosen by a mask");

static struct mfd_name *set_of(struct mfd_names *names, uint64_t cookie)
{
    /* Fibonacci hashing: cookies come in sequence, a run per CPU */
    return &names->names[(cookie * 0x9e3779b97f4a7c15ULL >> 32 & (SETS - 1)) * WAYS];
}

/* Source: FNV-1a. */
static uint32_t bit_of(const struct mfd_address *address)
{
    uint64_t hash = 0xcbf29ce484222325ULL ^ address->family ^ (uint64_t)address->port << 16;

    for (size_t i = 0; i < sizeof(address->bytes); i++)
        hash = (hash ^ address->bytes[i]) * 0x100000001b3ULL;
    return (uint32_t)(hash >> 32) % MFD_GIVEN_BITS;
}

static void note_given(struct mfd_names *names, const struct mfd_address *given)
{
    uint32_t bit = bit_of(given);

    names->given[bit / 64] |= 1ULL << bit % 64;
}

/* mfd_names_was_given - may this address have been given to some socket that asked for another? */
bool mfd_names_was_given(const struct mfd_names *names, const struct mfd_address *address)
{
    uint32_t bit = bit_of(address);

    return (names->given[bit / 64] >> bit % 64 & 1) != 0;
}

/* mfd_names_end - this socket has asked for the address itself now, and is given it */
void mfd_names_end(struct mfd_names *names, uint64_t cookie, const struct mfd_address *given)
{
    struct mfd_name *set = set_of(names, cookie);

    for (unsigned i = 0; i < WAYS; i++)
        if (set[i].cookie == cookie && mfd_address_is_same(&set[i].given, given))
            set[i] = (struct mfd_name){0};
}

static struct mfd_name *used(struct mfd_names *names, struct mfd_name *name)
{
    name->used = ++names->clock;
    return name;
}

/* mfd_names_by_asked - the name under which this socket asked for an address; NULL: there is none */
struct mfd_name *mfd_names_by_asked(struct mfd_names *names, uint64_t cookie,
                                    const struct mfd_address *asked)
{
    struct mfd_name *set = set_of(names, cookie);

    for (unsigned i = 0; i < WAYS; i++)
        if (set[i].cookie == cookie && mfd_address_is_same(&set[i].asked, asked))
            return used(names, &set[i]);
    return NULL;
}

/* mfd_names_by_given - the name, used last, under which this socket was given an address; NULL */
struct mfd_name *mfd_names_by_given(struct mfd_names *names, uint64_t cookie,
                                    const struct mfd_address *given)
{
    struct mfd_name *set = set_of(names, cookie);
    struct mfd_name *found = NULL;

    for (unsigned i = 0; i < WAYS; i++)
        if (set[i].cookie == cookie && mfd_address_is_same(&set[i].given, given) &&
            (found == NULL || found->used < set[i].used))
            found = &set[i];
    return found;
}

/* mfd_names_put - remember; replaces what was known of the same socket and address
 * Return: the name, unpinned. */
struct mfd_name *mfd_names_put(struct mfd_names *names, uint64_t cookie,
                               const struct mfd_address *asked, const struct mfd_address *given)
{
    struct mfd_name *set = set_of(names, cookie);
    struct mfd_name *oldest = &set[0];

    for (unsigned i = 0; i < WAYS; i++) {
        if (set[i].cookie == cookie && mfd_address_is_same(&set[i].asked, asked)) {
            oldest = &set[i];
            break;
        }
        if (set[i].used < oldest->used)
            oldest = &set[i];
    }
    note_given(names, given);
    *oldest = (struct mfd_name){.cookie = cookie, .asked = *asked, .given = *given};
    return used(names, oldest);
}

/* mfd_names_pin - this connected UDP socket follows its upstream
 * @pid, @fd: where it can be found again */
void mfd_names_pin(struct mfd_name *name, pid_t pid, int fd)
{
    name->process = mfd_target_process(pid);
    name->fd = fd;
    name->pinned = name->process > 0;
}

static int reconnect(int fd, int domain, const struct mfd_address *address)
{
    static const struct sockaddr nobody = {.sa_family = AF_UNSPEC};
    union mfd_sockaddr sockaddr;
    socklen_t length;

    if (mfd_address_format(address, domain, &sockaddr, &length) < 0)
        return -EAFNOSUPPORT;
    if (connect(fd, &sockaddr.any, length) == 0)
        return 0;
    if (connect(fd, &nobody, sizeof(nobody)) < 0 || connect(fd, &sockaddr.any, length) < 0)
        return -errno;
    return 0;
}

/* Is fd still the socket of this name, connected to where it was? */
static bool is_of(int fd, const struct mfd_name *name)
{
    union mfd_sockaddr sockaddr;
    struct mfd_address peer;
    socklen_t length = sizeof(sockaddr);

    return mfd_socket_cookie(fd) == name->cookie && getpeername(fd, &sockaddr.any, &length) == 0 &&
           mfd_address_parse(&sockaddr, length, &peer) == 0 &&
           mfd_address_is_same(&peer, &name->given);
}

static void follow(struct mfd_agent *agent, struct mfd_name *name, uint32_t upstream)
{
    struct mfd_candidates candidates;
    MFD_RELEASE int fd = -1; /* whatever is at that number now */
    int domain;

    if (mfd_target_open_fd(name->process, name->fd, &fd) < 0 || !is_of(fd, name) ||
        mfd_socket_option(fd, SOL_SOCKET, SO_DOMAIN, &domain) < 0) {
        name->pinned = false;
        return;
    }
    mfd_balance_choose(agent, upstream, &candidates);
    for (unsigned i = 0; i < candidates.n; i++) {
        struct mfd_outcome outcome = {.used = (int)i, .attempts = i + 1};

        if (reconnect(fd, domain, &candidates.endpoints[i]->address) < 0)
            continue;
        name->given = candidates.endpoints[i]->address;
        note_given(&agent->names, &name->given);
        mfd_account_outcome(agent, &candidates, &outcome);
        agent->stats->repinned++;
        return;
    }
    (void)reconnect(fd, domain,
                    &name->given); /* none can be reached: where it was, for a better route */
}

/* mfd_names_step - go on with pinning again */
void mfd_names_step(struct mfd_agent *agent)
{
    struct mfd_names *names = &agent->names;

    for (unsigned n = 0; n < REPIN_STEP && names->n_unchecked > 0;) {
        struct mfd_name *name = &names->names[--names->n_unchecked];
        struct mfd_match match;

        if (!name->pinned)
            continue;
        n++;
        mfd_routes_find(agent->table, IPPROTO_UDP, &name->asked, &match);
        if (match.verdict == MFD_REDIRECT &&
            !mfd_balance_serves(agent->table, match.argument, &name->given))
            follow(agent, name, match.argument);
    }
}

/* mfd_names_repin - the route table was replaced: go through the pinned names, the first of them now */
void mfd_names_repin(struct mfd_agent *agent)
{
    struct mfd_names *names = &agent->names;

    names->n_unchecked = names->clock == 0 ? 0 : MFD_NAMES_MAX; /* none was ever put */
    mfd_names_step(agent);
}
