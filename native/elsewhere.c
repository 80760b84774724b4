/* elsewhere.c - sockets of other network namespaces
 *
 * Theory of operation: some destinations are reached from another network namespace than the service's: the endpoints
 * of an upstream with a `netns`, and all of IPv4 where the service's IPv4 is elsewhere (MFD_SETUP_IPV4). Where
 * socket() tells that already, the socket is made there (sockets.c). Else connect() does: a dual-stack socket that goes to
 * a v4-mapped address, any socket that a route leads there, and one that has to come home again. A socket cannot
 * be moved; so another is made there that is like it, connected, and put in its place (replace.c). It is a socket of
 * the same family, type and protocol, so that only its identity tells: SO_COOKIE and the inode. bind() of a
 * dual-stack socket to a v4-mapped address does the same, so that it is found where IPv4 is; to [::] it stays.
 *
 *   options    as they were (options.c), but for BPF filters, multicast groups, and what that namespace does not have
 *   bound      to the same address and port, if the program has bound it; a failure is connect()'s
 *   in use     a TCP socket that is connected or connecting stays where it is
 *   rights     options and port are given to it as the program, as it is at that moment (identity.c): a privilege that
 *              it had in a namespace of its own, or has dropped since, is none in the other
 *
 * A socket of a namespace that we do not know, such as one that a program has made for itself, stays there.
 *
 * connect() is carried out on the new socket before it takes the place: when it fails at once, the program's own is
 * as before.
 * Limits: sendto() with an address goes from where the socket is; a shutdown() before connect() is forgotten.
 * Source: network_namespaces(7), connect(2), ipv6(7). */
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "meshfd.h"

/* mfd_elsewhere_may_be - can a socket of this service be in another namespace, or come to be there? */
bool mfd_elsewhere_may_be(const struct mfd_agent *agent)
{
    return (agent->flags & (MFD_SETUP_ELSEWHERE | MFD_SETUP_IPV4)) != 0;
}

/* mfd_elsewhere_of_address - which namespace an address is reached from, when no route says anything; its index */
uint32_t mfd_elsewhere_of_address(const struct mfd_agent *agent, const struct mfd_address *address)
{
    return address->family == AF_INET && (agent->flags & MFD_SETUP_IPV4) != 0 ? MFD_NETNS_IPV4
                                                                              : MFD_NETNS_OWN;
}

/* Return: the fd, non-blocking, owned by the caller; -errno. */
static int make_like(struct mfd_agent *agent, pid_t pid, int fd, uint32_t netns)
{
    struct mfd_wish wish = {
        .pid = pid, .is_here = mfd_cgroup_has(&agent->cgroup, pid), .netns = netns};
    int made;

    (void)mfd_socket_option(fd, SOL_SOCKET, SO_DOMAIN, &wish.domain);
    (void)mfd_socket_option(fd, SOL_SOCKET, SO_TYPE, &wish.type);
    (void)mfd_socket_option(fd, SOL_SOCKET, SO_PROTOCOL, &wish.protocol);
    wish.type |= SOCK_NONBLOCK;
    made = mfd_birth(agent, &wish);
    if (made >= 0)
        mfd_class_keep(pid, made); /* it sends before the program receives it */
    return made;
}

/* A socket tells a port that nobody has bound it to: after connect() has failed, one that it has given up
 * (net/ipv4/inet_hashtables.c, __inet_put_port); of UDP, while it is connected, one that the kernel chose. */
static bool is_bound(struct mfd_agent *agent, int fd, const struct mfd_address *address)
{
    union mfd_sockaddr peer;
    socklen_t length = sizeof(peer);

    if (getpeername(fd, &peer.any, &length) == 0)
        return false;
    return !mfd_address_is_wildcard(address) ||
           (address->port != 0 && mfd_known_has(&agent->bound, fd));
}

struct name { /* what a socket is to be bound to */
    union mfd_sockaddr sockaddr;
    socklen_t length; /* 0: to nothing */
};

static struct name name_of(struct mfd_agent *agent, int fd)
{
    struct name name = {.length = sizeof(name.sockaddr)};
    struct mfd_address address;

    if (getsockname(fd, &name.sockaddr.any, &name.length) < 0 ||
        mfd_address_parse(&name.sockaddr, name.length, &address) < 0 ||
        !is_bound(agent, fd, &address))
        name.length = 0;
    return name;
}

/* As the program itself: what it may not do there is not done for it.
 * Return: 0; bind(2)'s -errno; -ESRCH, -EPERM: the program's rights cannot be told, or taken on. */
static int furnish(const struct mfd_notification *call, int fd, int new_fd, const struct name *name)
{
    struct mfd_identity_change identity;
    int error = mfd_identity_enter(call, &identity);

    if (error == 0) {
        mfd_options_carry_all(fd, new_fd);
        if (name->length > 0 && bind(new_fd, &name->sockaddr.any, name->length) < 0)
            error = -errno;
    }
    mfd_identity_leave(&identity);
    return error;
}

/* mfd_elsewhere_note_bind - a program binds a socket, perhaps: is_bound() wants to know */
void mfd_elsewhere_note_bind(struct mfd_agent *agent, const struct mfd_notification *call)
{
    MFD_RELEASE int fd = -1;

    if (mfd_elsewhere_may_be(agent) && call->pid != 0 &&
        mfd_target_open_fd(call->pid, (int)call->call.args[0], &fd) == 0)
        mfd_known_add(&agent->bound, mfd_socket_cookie(fd));
}

/* mfd_elsewhere_open - a socket like the program's, unconnected, in another namespace
 * @ret_fd: non-blocking, owned by the caller
 * Return: 0; or -errno, for connect(). */
int mfd_elsewhere_open(struct mfd_agent *agent, const struct mfd_attempt *attempt,
                       const struct mfd_socket *socket, uint32_t netns, int *ret_fd)
{
    MFD_CLOSE int fd = make_like(agent, attempt->call.pid, socket->fd, netns);
    const struct name name = name_of(agent, socket->fd);
    int error = fd < 0 ? fd : furnish(&attempt->call, socket->fd, fd, &name);

    if (error < 0)
        return error == -EMFILE || error == -ENFILE ? -EAGAIN : error;
    if (mfd_known_has(&agent->bound, socket->fd))
        mfd_known_add(&agent->bound, mfd_socket_cookie(fd));
    *ret_fd = mfd_take_fd(&fd);
    return 0;
}

static int revive(struct mfd_agent *agent, const struct mfd_replacement *replacement, int *ret_fd)
{
    const struct mfd_notification *call = replacement->call;
    const struct name nothing = {.length = 0};
    MFD_CLOSE int fd = make_like(agent, call->pid, replacement->fd, replacement->old_netns);
    int error = fd < 0 ? fd : furnish(call, replacement->fd, fd, &nothing);

    if (error < 0)
        return error;
    (void)fcntl(fd, F_SETFL, fcntl(replacement->fd, F_GETFL));
    *ret_fd = mfd_take_fd(&fd);
    return 0;
}

/* mfd_elsewhere_replace - put the new socket, which is connected or connecting, where the program has its own
 * @socket: afterwards the new one, whatever comes of it
 * Return: 0; -ENOENT: the target is gone; -ECONNREFUSED, and a notice says why. */
int mfd_elsewhere_replace(struct mfd_agent *agent, const struct mfd_attempt *attempt,
                          struct mfd_socket *socket, int new_fd)
{
    struct mfd_replacement replacement = {
        .fd = new_fd,
        .revive = revive,
        .call = &attempt->call,
        .old_netns = socket->netns,
    };
    MFD_RELEASE int old_fd = mfd_take_fd(&socket->fd);
    int error;

    (void)fcntl(new_fd, F_SETFL, fcntl(old_fd, F_GETFL));
    error = mfd_replace(agent, attempt, &replacement, &old_fd);
    socket->fd = new_fd;
    return error < 0 && error != -ENOENT ? -ECONNREFUSED : error;
}

/* --- bind() --------------------------------------------------------------------------------------------------- */

/* A dual-stack socket on which nothing has happened; of others the kernel has the right errno. */
static bool can_be_bound(const struct mfd_socket *socket)
{
    struct sockaddr_in6 own = {.sin6_family = AF_INET6};
    socklen_t length = sizeof(own);
    int v6only = 1;

    return socket->protocol != 0 && socket->domain == AF_INET6 && socket->netns == MFD_NETNS_OWN &&
           mfd_socket_option(socket->fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only) == 0 && v6only == 0 &&
           getsockname(socket->fd, (struct sockaddr *)&own, &length) == 0 && own.sin6_port == 0 &&
           (socket->protocol == IPPROTO_UDP || mfd_inplace_is_closed(socket->fd));
}

/* Put a bound one in its place. Return: 0; -ENOENT: the target is gone; what bind(2) says. */
static int bind_elsewhere(struct mfd_agent *agent, const struct mfd_attempt *attempt,
                          struct mfd_socket *socket)
{
    const struct name name = {.sockaddr = attempt->sockaddr, .length = attempt->length};
    MFD_CLOSE int fd = make_like(agent, attempt->call.pid, socket->fd, MFD_NETNS_IPV4);
    int error = fd < 0 ? -ENOMEM : furnish(&attempt->call, socket->fd, fd, &name);

    if (error < 0)
        return error;
    mfd_known_add(&agent->bound, mfd_socket_cookie(fd));
    error = mfd_elsewhere_replace(agent, attempt, socket, mfd_take_fd(&fd));
    return error == -ECONNREFUSED ? -EADDRINUSE : error;
}

/* mfd_elsewhere_bind - bind a dual-stack socket to an address of IPv4, where IPv4 is
 * @attempt: call, address as it was given, and asked
 * Return: whether the call is answered; else it is the kernel's. */
bool mfd_elsewhere_bind(struct mfd_agent *agent, const struct mfd_attempt *attempt)
{
    const struct mfd_notification *call = &attempt->call;
    struct mfd_socket socket;

    if ((agent->flags & MFD_SETUP_IPV4) == 0 || attempt->asked.family != AF_INET ||
        attempt->sockaddr.any.sa_family != AF_INET6 ||
        mfd_forbidden_binds(agent, attempt->asked.port) || /* the kernel knows for whom */
        mfd_socket_take_up(agent, call->pid, (int)call->call.args[0], &socket) < 0)
        return false;
    if (can_be_bound(&socket) && mfd_notify_is_alive(call)) {
        int error = bind_elsewhere(agent, attempt, &socket);

        mfd_release_at(&socket.fd);
        mfd_answer(agent, call, error);
        return true;
    }
    mfd_release_at(&socket.fd);
    return false;
}
