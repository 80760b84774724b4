/* candidates.c - try endpoints one after the other, until one does not refuse at once
 *
 * Theory of operation: an internet endpoint is written in the socket's own family and the program's socket
 * is connected to it, without waiting (inplace.c); to a unix socket, and to what another network namespace
 * reaches, a new socket is connected, which is to take the other's place (standin.c, elsewhere.c). Whatever
 * refuses makes room for the next; the last one's refusal is the program's own, in the way that it would have
 * got it.
 * Limits: MFD_ENDPOINTS_MAX.
 * Source: connect(2). */
#include <sys/socket.h>

#include "meshfd.h"

/* mfd_candidates_is_refusal - does it say that this endpoint does not serve now? Another may. */
bool mfd_candidates_is_refusal(int error)
{
    return error == ECONNREFUSED || error == EHOSTUNREACH || error == ENETUNREACH;
}

/* Of UDP the kernel says so, having given it a port. */
static bool is_v6only(const struct mfd_socket *socket)
{
    int v6only = 0;

    return socket->domain == AF_INET6 && socket->protocol != IPPROTO_UDP &&
           mfd_socket_option(socket->fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only) == 0 && v6only != 0;
}

/* A connection to this host is refused while connect() still holds the socket's lock, so that it says
 * EINPROGRESS, and the refusal is there a moment later. Asking yields the errno, and makes the socket
 * unconnected (net/ipv4/af_inet.c, sock_error).
 * Return: the errno that the attempt has come to by now. */
static int settle(const struct mfd_socket *socket, int error)
{
    if (error != EINPROGRESS || !mfd_inplace_has_error(socket->fd))
        return error;
    return mfd_inplace_ask(socket->fd, socket->domain);
}

static void try_unix(const struct mfd_attempt *attempt, const struct mfd_endpoint *endpoint,
                     struct mfd_outcome *outcome)
{
    int error = mfd_standin_open(&attempt->call, endpoint, &outcome->new_fd);

    outcome->error = error < 0 ? ECONNREFUSED : 0;
    if (error == -EAGAIN && outcome->full < 0)
        outcome->full = outcome->used;
}

/* @is_last: nothing is tried after it, nor waited for */
static void try_internet(const struct mfd_socket *socket, const union mfd_sockaddr *sockaddr,
                         socklen_t length, bool is_last, struct mfd_outcome *outcome)
{
    outcome->error = connect(socket->fd, &sockaddr->any, length) < 0 ? errno : 0;
    if (!is_last)
        outcome->error = settle(socket, outcome->error);
}

/* The same through a socket of the namespace that the endpoint is reached from. One that refuses leaves nothing. */
static void try_elsewhere(struct mfd_agent *agent, const struct mfd_attempt *attempt,
                          const struct mfd_socket *socket, const struct mfd_endpoint *endpoint,
                          const union mfd_sockaddr *sockaddr, socklen_t length, bool is_last,
                          struct mfd_outcome *outcome)
{
    struct mfd_socket other = *socket;
    int error = mfd_elsewhere_open(agent, attempt, socket, endpoint->netns, &other.fd);

    if (error < 0) {
        outcome->error = -error;
        return;
    }
    try_internet(&other, sockaddr, length, is_last, outcome);
    if (outcome->error == 0 || outcome->error == EINPROGRESS)
        outcome->new_fd = other.fd;
    else
        mfd_close_at(&other.fd);
}

/* Is this endpoint reached from where the socket is? What is nowhere that we know stays there. */
static bool is_here(const struct mfd_socket *socket, const struct mfd_endpoint *endpoint)
{
    return socket->netns == MFD_ANY || endpoint->netns == socket->netns;
}

/* Can this socket have an endpoint of that family? A V6ONLY one reaches no IPv4 address, whatever serves it. */
static bool is_within_reach(const struct mfd_socket *socket, const struct mfd_address *asked,
                            const struct mfd_address *address)
{
    int family = address->family == AF_UNIX ? asked->family : address->family;

    return family != AF_INET || !is_v6only(socket);
}

/* An endpoint is written in the form of what was asked: IPv6 sockets of UDP take IPv4 addresses as such, too, and
 * one that is V6ONLY has another errno for those. */
static int format(const struct mfd_attempt *attempt, const struct mfd_socket *socket,
                  const struct mfd_address *address, union mfd_sockaddr *ret, socklen_t *ret_length)
{
    int family = address->family == AF_INET ? attempt->sockaddr.any.sa_family : socket->domain;

    return mfd_address_format(address, family, ret, ret_length);
}

/* mfd_candidates_try - connect the socket, or one that is to take its place; call with its mode entered */
struct mfd_outcome mfd_candidates_try(struct mfd_agent *agent, const struct mfd_attempt *attempt,
                                      const struct mfd_socket *socket,
                                      const struct mfd_candidates *candidates)
{
    const bool standins =
        (agent->flags & MFD_SETUP_STANDINS) != 0 && socket->protocol == IPPROTO_TCP;
    struct mfd_outcome outcome = {.error = ENETUNREACH, .used = -1, .new_fd = -1, .full = -1};

    for (unsigned i = 0; i < candidates->n; i++) {
        const struct mfd_endpoint *endpoint = candidates->endpoints[i];
        const struct mfd_address *address = &endpoint->address;
        const bool is_unix = address->family == AF_UNIX && standins;
        const bool is_last = i + 1 == candidates->n && outcome.full < 0;
        union mfd_sockaddr sockaddr;
        socklen_t length;

        if (!is_within_reach(socket, &attempt->asked, address) ||
            (!is_unix && format(attempt, socket, address, &sockaddr, &length) < 0))
            continue;
        outcome.attempts++;
        outcome.used = (int)i;
        if (is_unix)
            try_unix(attempt, endpoint, &outcome);
        else if (!is_here(socket, endpoint))
            try_elsewhere(agent, attempt, socket, endpoint, &sockaddr, length, is_last, &outcome);
        else
            try_internet(socket, &sockaddr, length, is_last, &outcome);
        if (!mfd_candidates_is_refusal(outcome.error))
            break;
    }
    return outcome;
}
