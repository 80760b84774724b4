/* activation.c - hand listening sockets over: bind() and listen()
 *
 * Theory of operation: a daemon that knows nothing of activation calls socket(), bind(), listen().
 * When its bind() means the address of one of the service's listening sockets, that socket is put at
 * the daemon's fd number, as dup2(2) would put it, and bind() returns 0. First the socket takes over
 * what the daemon had done to its own: O_NONBLOCK, options (options.c), registrations in epoll
 * instances (epoll.c); the fd keeps its close-on-exec. listen() is then carried out on it here, so
 * that its success is known: that is the readiness of a daemon that has no other sign.
 *
 * What an address means. Two addresses mean the same when a client could not tell them apart:
 *
 *   daemon binds                listening socket          handed over
 *   a.b.c.d                     a.b.c.d                   yes
 *   ::ffff:a.b.c.d (AF_INET6)   a.b.c.d                   yes; accepted peers show as AF_INET
 *   0.0.0.0                     0.0.0.0                   yes
 *   [::] dual stack             [::] dual stack           yes
 *   [::] dual stack             0.0.0.0, or [::] v6 only  yes: the configuration narrows it
 *   [::] v6 only                [::] v6 only              yes
 *   anything on AF_INET         one of AF_INET6           no: accept() would give addresses that the
 *                                                         program has no room for
 *   another address, same port                            no, and reported: the configuration and the
 *                                                         daemon disagree
 *
 * In a transparent service the families must be the same: accept() then tells addresses as it would of a socket
 * of the program's own. (A v4-mapped address in the configuration makes an AF_INET6 socket of an IPv4 address.)
 *
 * Every other bind() is the kernel's, but for addresses of IPv4 that are in another namespace (elsewhere.c): the
 * program binds with its own rights (a low port stays forbidden to whom it is forbidden), the lease having been
 * given up first.
 * Limits: all holders of a listening socket share one open file, so they share its O_NONBLOCK; the
 * last daemon to bind decides.
 * Source: bind(2), ip(7), ipv6(7) IPV6_V6ONLY, seccomp_unotify(2) SECCOMP_ADDFD_FLAG_SETFD. */
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "kernel.h"
#include "meshfd.h"

static int fd_of(const struct mfd_notification *call)
{
    return (int)call->call.args[0];
}

static void leave_to_kernel(struct mfd_agent *agent, const struct mfd_notification *call)
{
    mfd_socket_let_go(agent, call->pid, fd_of(call));
    mfd_answer_continue(agent, call);
}

/* @own_family: only a socket of the program's own family will do */
static bool means(const struct mfd_listening *listening, const struct mfd_address *asked,
                  int domain, bool v6only, bool own_family)
{
    if (domain != listening->domain && (own_family || domain == AF_INET))
        return false;
    if (!mfd_address_is_wildcard(asked) || asked->family == AF_INET)
        return mfd_address_same_ip(asked, &listening->address);
    if (!mfd_address_is_wildcard(&listening->address))
        return false;
    if (v6only)
        return listening->domain == AF_INET6 && listening->v6only;
    return true;
}

static bool has_port(const struct mfd_listening_sockets *all, uint16_t port)
{
    for (unsigned i = 0; i < all->n; i++)
        if (all->sockets[i].fd >= 0 && all->sockets[i].address.port == port)
            return true;
    return false;
}

/* Return: the index of the socket to hand over, or MFD_ANY; @ret_near: one that has the port. */
static uint32_t find_meant(const struct mfd_agent *agent, const struct mfd_address *asked,
                           int domain, bool v6only, uint32_t *ret_near)
{
    const struct mfd_listening_sockets *all = &agent->listening;
    const bool own_family = (agent->flags & MFD_SETUP_TRANSPARENT) != 0;

    for (uint32_t i = 0; i < all->n; i++) {
        const struct mfd_listening *listening = &all->sockets[i];

        if (listening->fd < 0 || listening->address.port != asked->port)
            continue;
        if (means(listening, asked, domain, v6only, own_family))
            return i;
        *ret_near = i;
    }
    return MFD_ANY;
}

static bool is_bound(int fd)
{
    union mfd_sockaddr sockaddr;
    struct mfd_address address;
    socklen_t length = sizeof(sockaddr);

    return getsockname(fd, &sockaddr.any, &length) == 0 &&
           mfd_address_parse(&sockaddr, length, &address) == 0 && address.port != 0;
}

/* In a network namespace that the program has made for itself, the same address is another place. In those that we
 * know, the service's own and where its IPv4 is, the configuration says what an address means. Before Linux 5.14 that
 * cannot be told. */
static bool is_known_network(const struct mfd_agent *agent, int fd)
{
    return mfd_netns_of(&agent->netns, fd) != MFD_ANY;
}

static void carry_nonblock(int from_fd, int to_fd)
{
    int from = fcntl(from_fd, F_GETFL);
    int to = fcntl(to_fd, F_GETFL);

    if (((from ^ to) & O_NONBLOCK) != 0)
        (void)fcntl(to_fd, F_SETFL, to ^ O_NONBLOCK);
}

/* Put the listening socket at the fd. Return: 0, -ENOENT when the target is gone, -errno. */
static int hand_over(struct mfd_agent *agent, const struct mfd_notification *call,
                     const struct mfd_listening *listening, struct mfd_socket *fresh)
{
    struct mfd_registrations *registrations = NULL;
    const int number = fd_of(call);
    uint64_t cookie = mfd_socket_cookie(fresh->fd);
    unsigned long flags;
    int error = mfd_target_fd_flags(call->pid, fd_of(call), &flags);

    if (error < 0)
        return error;
    error = mfd_epoll_collect(call->pid, &number, 1, &registrations);
    if (error < 0)
        return error;
    if (!mfd_notify_is_alive(call)) {
        (void)mfd_epoll_restore(registrations, -1);
        return -ENOENT;
    }
    carry_nonblock(fresh->fd, listening->fd);
    mfd_options_carry(fresh->fd, listening->fd);
    mfd_release_at(&fresh->fd); /* the last duplicate: SETFD then ends the fresh socket */
    error = mfd_replace_fd(call, listening->fd, fd_of(call), (flags & O_CLOEXEC) != 0);
    if (error < 0) {
        (void)mfd_epoll_restore(registrations, -1);
        return error;
    }
    error = mfd_epoll_restore(registrations, listening->fd);
    if (error < 0)
        mfd_control_notice(agent, MFD_NOTICE_HANDOVER, call->pid, -error, &listening->address,
                           (uint32_t)(listening - agent->listening.sockets));
    mfd_parked_replace(agent, cookie, listening->fd);
    return 0;
}

/* What was bound for one of our sockets, perhaps, and is not looked at any further. */
static void tell_unseen(struct mfd_agent *agent, const struct mfd_notification *call, int error,
                        const struct mfd_address *asked)
{
    mfd_account_unseen(agent, call, error, asked);
    if (call->pid == 0 || error == -EPERM || error == -EBADF || error == -EFAULT ||
        !mfd_notify_is_alive(call))
        return; /* that says it; the program's own mistake; gone */
    mfd_control_notice(agent, MFD_NOTICE_HANDOVER, call->pid, -error, asked, MFD_ANY);
}

/* The address names a port of ours: decide. */
static void bind_ours(struct mfd_agent *agent, const struct mfd_notification *call,
                      const struct mfd_address *asked, sa_family_t family)
{
    struct mfd_socket fresh = {.fd = -1};
    int error = mfd_socket_take_up(agent, call->pid, fd_of(call), &fresh);
    MFD_RELEASE int fd = fresh.fd;
    uint32_t near = MFD_ANY;
    uint32_t index;
    int v6only = 0;

    if (error < 0)
        tell_unseen(agent, call, error, asked);
    /* not TCP, already bound, of another family or network: the kernel has the right errno */
    if (error < 0 || fresh.protocol != IPPROTO_TCP || fresh.domain != family || is_bound(fd) ||
        !is_known_network(agent, fd)) {
        mfd_release_at(&fd);
        mfd_answer_continue(agent, call);
        return;
    }
    if (fresh.domain == AF_INET6)
        (void)mfd_socket_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only);
    index = find_meant(agent, asked, fresh.domain, v6only != 0, &near);
    if (index == MFD_ANY) {
        agent->stats->mismatched++;
        mfd_control_bound(agent, MFD_MSG_MISMATCH, call->pid, near, asked);
        mfd_release_at(&fd);
        mfd_answer_continue(agent, call);
        return;
    }
    if (mfd_forbidden_binds(agent, asked->port)) { /* the kernel knows for whom */
        mfd_control_notice(agent, MFD_NOTICE_FORBIDDEN, call->pid, 0, asked, index);
        mfd_release_at(&fd);
        mfd_answer_continue(agent, call);
        return;
    }
    error = hand_over(agent, call, &agent->listening.sockets[index], &fresh);
    fd = fresh.fd;
    if (error < 0 && !mfd_notify_is_alive(call)) {
        agent->stats->vanished++;
        return;
    }
    if (error < 0) {
        mfd_control_notice(agent, MFD_NOTICE_HANDOVER, call->pid, -error, asked, index);
        mfd_release_at(&fd);
        mfd_answer(agent, call, error == -EMFILE ? -ENOMEM : -EADDRINUSE);
        return;
    }
    agent->stats->handed++;
    mfd_answer(agent, call, 0);
    mfd_control_bound(agent, MFD_MSG_HANDED, call->pid, index, asked);
}

/* To bind(), AF_UNSPEC and 0.0.0.0 is AF_INET and 0.0.0.0, on an AF_INET socket.
 * Source: ip(7); net/ipv4/af_inet.c (__inet_bind). */
static void take_unspecified(union mfd_sockaddr *sockaddr, int length)
{
    if (length >= (int)sizeof(sockaddr->in) && sockaddr->any.sa_family == AF_UNSPEC &&
        sockaddr->in.sin_addr.s_addr == htonl(INADDR_ANY))
        sockaddr->any.sa_family = AF_INET;
}

/* Does it matter what is bound? */
static bool is_looked_at(const struct mfd_agent *agent, int length)
{
    return (agent->listening.n > 0 || (agent->flags & MFD_SETUP_IPV4) != 0) && length >= 0 &&
           length <= MFD_SOCKADDR_MAX;
}

/* mfd_bind_handle - answer bind() */
void mfd_bind_handle(struct mfd_agent *agent, const struct mfd_notification *call)
{
    struct mfd_attempt attempt = {.call = *call};
    union mfd_sockaddr *sockaddr = &attempt.sockaddr;
    int length = (int)call->call.args[2];
    int error = -ESRCH;

    agent->stats->binds++;
    mfd_elsewhere_note_bind(agent, call);
    if (!is_looked_at(agent, length)) {
        leave_to_kernel(agent, call);
        return;
    }
    attempt.length = (socklen_t)length;
    if (call->pid != 0)
        error = mfd_target_read(call->pid, call->call.args[1], sockaddr->bytes, attempt.length);
    if (error < 0) {
        if (agent->listening.n > 0)
            tell_unseen(agent, call, error, NULL);
        leave_to_kernel(agent, call);
        return;
    }
    take_unspecified(sockaddr, length);
    error = mfd_address_parse(sockaddr, attempt.length, &attempt.asked);
    if (error == 0 && has_port(&agent->listening, attempt.asked.port))
        bind_ours(agent, call, &attempt.asked, sockaddr->any.sa_family);
    else if (error < 0 || !mfd_elsewhere_bind(agent, &attempt))
        leave_to_kernel(agent, call);
}

/* The queue holds the clients of a restart, too: a daemon's own backlog can only make it longer. A
 * negative one is a very long one, as in the kernel. */
static int backlog_of(const struct mfd_agent *agent, int index, int asked)
{
    uint32_t configured = index < 0 ? 0 : agent->listening.sockets[index].backlog;

    return (uint32_t)asked > configured ? asked : (int)configured;
}

/* mfd_listen_handle - answer listen() */
void mfd_listen_handle(struct mfd_agent *agent, const struct mfd_notification *call)
{
    struct mfd_socket socket = {.fd = -1};
    union mfd_sockaddr sockaddr;
    struct mfd_address address = {0};
    socklen_t length = sizeof(sockaddr);
    int error = -EPROTONOSUPPORT;
    int index;

    agent->stats->listens++;
    if (call->pid != 0 && (agent->ready_any || agent->listening.n > 0))
        error = mfd_socket_take_up(agent, call->pid, fd_of(call), &socket);
    MFD_RELEASE int fd = socket.fd;
    if (error < 0) {
        mfd_parked_settle(agent, call->pid, fd_of(call));
        leave_to_kernel(agent, call);
        return;
    }
    if (socket.protocol != IPPROTO_TCP) {
        mfd_release_at(&fd);
        mfd_answer_continue(agent, call);
        return;
    }
    mfd_parked_keep(agent, fd);
    index = mfd_listening_find(&agent->listening, fd);
    if ((index < 0 && !agent->ready_any) || !mfd_notify_is_alive(call)) {
        mfd_release_at(&fd);
        mfd_answer_continue(agent, call);
        return;
    }
    error = listen(fd, backlog_of(agent, index, (int)call->call.args[1])) < 0 ? -errno : 0;
    if (error == 0 && getsockname(fd, &sockaddr.any, &length) == 0)
        (void)mfd_address_parse(&sockaddr, length, &address);
    mfd_release_at(&fd);
    mfd_answer(agent, call, error);
    if (error == 0)
        mfd_control_bound(agent, MFD_MSG_LISTENING, call->pid,
                          index < 0 ? MFD_ANY : (uint32_t)index, &address);
}
