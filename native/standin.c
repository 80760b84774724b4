/* standin.c - put a unix socket in the place of a program's TCP socket
 *
 * Theory of operation: a connect() that is redirected to a unix socket cannot be carried out in place: a
 * socket never changes its family. So the agent makes a stream unix socket, connects it, and puts it at every fd
 * number at which the program has the TCP socket, as dup2(2) would; connect() then returns 0. On a
 * non-blocking socket it fails with EINPROGRESS, because that is what a TCP socket does even on loopback, and
 * there are programs that wait for the end of an attempt without having looked whether it was over.
 * What the program sees of the socket is made to look as before; replace.c, and
 *   status flags            O_NONBLOCK and those that fcntl(F_SETFL) takes, but O_ASYNC
 *   options of SOL_SOCKET   carried over (options.c); those of IP and TCP are kept in a record
 *   addresses, options      answered from the record (standin_calls.c), which is found by SO_COOKIE
 * Reading, writing, shutdown() and the like are the kernel's: after connect() nothing is in between.
 *
 * connect() of a stream unix socket does not wait here: it succeeds, or fails at once, with EAGAIN when the
 * server's queue is full (queue.c). Any failure makes room for the next endpoint. It is made as the
 * program is at that moment (identity.c), which is what the server sees by SO_PEERCRED; but the pid there is
 * the agent's. Paths are the agent's, not those of a program that has changed its root.
 *
 * Limits: MFD_STANDINS_SETS times _WAYS records, of which the one that was
 * used longest ago gives way: what it stood for then shows as the unix socket that it is.
 * Source: unix(7), credentials(7). */
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "kernel.h"
#include "meshfd.h"

#define FLAGS                                                                                      \
    (O_APPEND | O_DIRECT | O_NOATIME | O_NONBLOCK) /* SETFL_MASK of fs/fcntl.c but O_ASYNC */

/* --- connecting --------------------------------------------------------------------------------------------- */

/* mfd_standin_open - connect to a unix socket, as the program
 * @ret_fd: connected, non-blocking, owned by the caller
 * Return: 0 or -errno: another endpoint may serve. */
int mfd_standin_open(const struct mfd_notification *call, const struct mfd_endpoint *endpoint,
                     int *ret_fd)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + endpoint->path_size);
    struct mfd_identity_change identity;
    MFD_CLOSE int fd = -1;
    int error;

    memcpy(name.sun_path, endpoint->path, endpoint->path_size);
    if (endpoint->path[0] != '\0')
        length++; /* a path ends in NUL, an abstract name does not */
    error = mfd_identity_enter(call, &identity);
    if (error == 0) {
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0 || connect(fd, (const struct sockaddr *)&name, length) < 0)
            error = -errno;
    }
    mfd_identity_leave(&identity);
    if (error == 0)
        *ret_fd = mfd_take_fd(&fd);
    return error;
}

/* --- the record ---------------------------------------------------------------------------------------------- */

static struct mfd_standin *set_of(struct mfd_standins *standins, uint64_t cookie)
{
    return standins->records[cookie % MFD_STANDINS_SETS];
}

static struct mfd_standin *new_record(struct mfd_standins *standins, uint64_t cookie)
{
    struct mfd_standin *set = set_of(standins, cookie);
    struct mfd_standin *oldest = &set[0];

    for (unsigned i = 1; i < MFD_STANDINS_WAYS; i++)
        if (set[i].used < oldest->used) /* a free one was never used */
            oldest = &set[i];
    *oldest = (struct mfd_standin){.cookie = cookie, .used = ++standins->clock};
    standins->n_made++;
    return oldest;
}

/* mfd_standin_find - the record of the stand-in that the target has at fd
 * Return: NULL when it is none, or out of reach. */
struct mfd_standin *mfd_standin_find(struct mfd_agent *agent, const struct mfd_notification *call,
                                     int fd)
{
    struct mfd_standin *set;
    MFD_RELEASE int own_fd = -1;
    uint64_t cookie;
    int error;

    if (agent->standins.n_made == 0)
        return NULL;
    error = mfd_target_open_fd(call->pid, fd, &own_fd);
    if (error < 0) {
        if (call->call.kind != MFD_CALL_CONNECT && call->call.kind != MFD_CALL_GETPEERNAME)
            mfd_account_unseen(agent, call, error, NULL); /* those are looked into once more */
        return NULL;
    }
    cookie = mfd_socket_cookie(own_fd);
    set = set_of(&agent->standins, cookie);
    for (unsigned i = 0; cookie != 0 && i < MFD_STANDINS_WAYS; i++) {
        if (set[i].cookie == cookie) {
            set[i].used = ++agent->standins.clock;
            return &set[i];
        }
    }
    return NULL;
}

/* The address that the kernel would give a connection from a socket bound to @bound (wildcard and port 0: to
 * nothing): a datagram socket that is connected there is asked. Where no way leads there, it would be
 * loopback's, of the peer's family. */
static void choose_local(int domain, const struct mfd_address *bound,
                         const struct mfd_address *peer, struct mfd_address *ret_local)
{
    static const struct mfd_address loopback = {
        .family = AF_INET, .port = 1, .bytes = {127, 0, 0, 1}};
    static const struct mfd_address loopback6 = {
        .family = AF_INET6, .port = 1, .bytes = {[15] = 1}};
    MFD_CLOSE int fd = socket(domain, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct mfd_address from = *bound;
    union mfd_sockaddr sockaddr;
    const int off = 0;
    socklen_t length;

    *ret_local = *bound;
    if (fd < 0)
        return;
    from.port = 0;
    if (domain == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    if (!mfd_address_is_wildcard(bound) &&
        (mfd_address_format(&from, domain, &sockaddr, &length) < 0 ||
         bind(fd, &sockaddr.any, length) < 0))
        return;
    if (mfd_address_format(peer, domain, &sockaddr, &length) < 0 ||
        connect(fd, &sockaddr.any, length) < 0) {
        (void)mfd_address_format(peer->family == AF_INET6 ? &loopback6 : &loopback, domain,
                                 &sockaddr, &length);
        if (connect(fd, &sockaddr.any, length) < 0)
            return;
    }
    length = sizeof(sockaddr);
    if (getsockname(fd, &sockaddr.any, &length) < 0 ||
        mfd_address_parse(&sockaddr, length, &from) < 0)
        return;
    if (bound->port != 0)
        from.port = bound->port;
    *ret_local = from;
}

static void fill_record(struct mfd_standin *record, const struct mfd_attempt *attempt, int tcp_fd)
{
    struct mfd_address bound = {.family = attempt->sockaddr.any.sa_family};
    union mfd_sockaddr sockaddr;
    socklen_t length = sizeof(sockaddr);
    int protocol = IPPROTO_TCP;

    (void)mfd_socket_option(tcp_fd, SOL_SOCKET, SO_PROTOCOL, &protocol);
    record->told_cookie = mfd_socket_cookie(tcp_fd);
    record->domain = attempt->sockaddr.any.sa_family;
    record->protocol = (uint16_t)protocol;
    record->peer = attempt->meant;
    if (getsockname(tcp_fd, &sockaddr.any, &length) == 0)
        (void)mfd_address_parse(&sockaddr, length, &bound);
    if (bound.port != 0 && !mfd_address_is_wildcard(&bound))
        record->local = bound;
    else
        choose_local(record->domain, &bound, &record->peer, &record->local);
    mfd_standin_options_read(record, tcp_fd);
}

/* --- replacing ----------------------------------------------------------------------------------------------- */

static void carry(int from_fd, int to_fd)
{
    (void)fcntl(to_fd, F_SETFL, fcntl(from_fd, F_GETFL) & FLAGS);
    mfd_options_carry_standin(from_fd, to_fd);
}

/* A TCP socket like the one that the stand-in has replaced. */
static int revive(struct mfd_agent *agent, const struct mfd_replacement *replacement, int *ret_fd)
{
    int error = mfd_standin_open_like(replacement->record, ret_fd);

    (void)agent;
    if (error == 0)
        carry(replacement->fd, *ret_fd);
    return error;
}

/* mfd_standin_replace - put a connected unix socket where the program has its TCP socket
 * @tcp_fd, @standin_fd: the agent's duplicates, taken over
 * Return: the answer: 0, -EINPROGRESS; -ECONNREFUSED, and a notice says why; -ENOENT: the target is gone. */
int mfd_standin_replace(struct mfd_agent *agent, const struct mfd_attempt *attempt, int tcp_fd,
                        int standin_fd, bool blocking)
{
    MFD_RELEASE int old_fd = tcp_fd;
    MFD_CLOSE int fd = standin_fd;
    struct mfd_standin *record = new_record(&agent->standins, mfd_socket_cookie(fd));
    struct mfd_replacement replacement = {.fd = fd, .revive = revive, .record = record};
    int error;

    carry(old_fd, fd);
    fill_record(record, attempt, old_fd);
    record->untold = !blocking;
    error = mfd_replace(agent, attempt, &replacement, &old_fd);
    if (error < 0)
        return error == -ENOENT ? error : -ECONNREFUSED;
    agent->stats->standins++;
    return blocking ? 0 : -EINPROGRESS;
}
