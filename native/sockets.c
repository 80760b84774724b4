/* sockets.c - socket(), and taking up the socket that a later call names
 *
 * Theory of operation: socket() of a TCP socket is answered with one that the agent makes. It has
 * the agent's network namespace and cgroup, which are the service's, and the user and group that the
 * program has at that moment (identity.c). Its errors are socket()'s errors, but for the agent's own want of
 * fds: then the program makes its socket itself, and loses nothing. So it does in a network namespace that it
 * has made for itself, and in a cgroup below the service's.
 *
 * Where the service's IPv4 is in another namespace (MFD_SETUP_IPV4), stream and datagram sockets of AF_INET are
 * made there, whoever asks, and only there: for a program in another cgroup by a child of ours that is born there
 * (birth.c). Raw sockets and those of ping(8) need the program's own rights, and stay at home.
 *
 * A later call (connect, bind, listen) names the socket by thread and fd number. Taking it up yields
 * a duplicate of the open file: the lease if there is one, else a re-opened one. In either case the
 * lease is over then, because the socket settles. Sockets that were never made here (inherited, received over
 * a unix socket, track = "connect") are taken up by re-opening just the same.
 * Source: socket(2), socket(7), pidfd_getfd(2). */
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "kernel.h"
#include "meshfd.h"

#define SOCK_TYPE_BITS 0xf /* linux/net.h: SOCK_TYPE_MASK */

/* mfd_socket_option - an int option
 * Return: 0 or -errno. */
int mfd_socket_option(int fd, int level, int name, int *ret_value)
{
    socklen_t size = sizeof(*ret_value);

    return getsockopt(fd, level, name, ret_value, &size) < 0 ? -errno : 0;
}

/* mfd_socket_timeout_ns - SO_SNDTIMEO or SO_RCVTIMEO; 0: none */
uint64_t mfd_socket_timeout_ns(int fd, int name)
{
    struct timeval timeout = {0};
    socklen_t size = sizeof(timeout);

    if (getsockopt(fd, SOL_SOCKET, name, &timeout, &size) < 0)
        return 0;
    return (uint64_t)timeout.tv_sec * MFD_NS_PER_S + (uint64_t)timeout.tv_usec * MFD_NS_PER_US;
}

/* mfd_socket_is_multipath - one of MPTCP, or TCP? */
bool mfd_socket_is_multipath(int fd)
{
    int protocol = 0;

    return mfd_socket_option(fd, SOL_SOCKET, SO_PROTOCOL, &protocol) == 0 &&
           protocol == IPPROTO_MPTCP;
}

/* mfd_socket_is_nonblocking - O_NONBLOCK of the open file */
bool mfd_socket_is_nonblocking(int fd)
{
    return (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0;
}

/* mfd_socket_cookie - SO_COOKIE, or 0 when fd is no socket */
uint64_t mfd_socket_cookie(int fd)
{
    uint64_t cookie = 0;
    socklen_t size = sizeof(cookie);

    return getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size) < 0 ? 0 : cookie;
}

static bool is_tcp(int domain, int type, int protocol)
{
    return (domain == AF_INET || domain == AF_INET6) && type == SOCK_STREAM &&
           (protocol == 0 || protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP);
}

/* What kind of socket fd is, as struct mfd_socket has it. Only TCP (and MPTCP) sockets answer an option of
 * TCP's: one call for the usual case. */
static int protocol_of(int fd)
{
    int value = 0;

    if (mfd_socket_option(fd, IPPROTO_TCP, TCP_NODELAY, &value) == 0)
        return IPPROTO_TCP;
    if (mfd_socket_option(fd, SOL_SOCKET, SO_PROTOCOL, &value) < 0 || value != IPPROTO_UDP)
        return 0;
    return mfd_socket_option(fd, SOL_SOCKET, SO_TYPE, &value) == 0 && value == SOCK_DGRAM
               ? IPPROTO_UDP
               : 0;
}

/* --- making ---------------------------------------------------------------------------------------------- */

/* Ours would be felt, as a port that stays taken: so it is closed before the call returns. */
static int give(const struct mfd_notification *call, int *fd, bool cloexec)
{
    int number = mfd_give_fd(call, *fd, cloexec);

    mfd_close_at(fd);
    return number;
}

/* Which namespace a socket of the service's is to be made in; MFD_ANY: the program makes it itself. */
static uint32_t birthplace(const struct mfd_agent *agent, const struct mfd_wish *wish)
{
    const int type = wish->type & SOCK_TYPE_BITS;

    if ((agent->flags & MFD_SETUP_IPV4) != 0 && wish->domain == AF_INET &&
        wish->protocol != IPPROTO_ICMP && (type == SOCK_STREAM || type == SOCK_DGRAM))
        return MFD_NETNS_IPV4;
    return (agent->flags & MFD_SETUP_CREATE) != 0 && wish->is_here &&
                   is_tcp(wish->domain, type, wish->protocol)
               ? MFD_NETNS_OWN
               : MFD_ANY;
}

/* mfd_socket_handle - answer socket() */
void mfd_socket_handle(struct mfd_agent *agent, const struct mfd_notification *call)
{
    struct mfd_wish wish = {
        .pid = call->pid,
        .netns = MFD_ANY,
        .domain = (int)call->call.args[0],
        .type = (int)call->call.args[1],
        .protocol = (int)call->call.args[2],
    };
    const bool cloexec = (wish.type & SOCK_CLOEXEC) != 0;
    const bool is_leased = is_tcp(wish.domain, wish.type & SOCK_TYPE_BITS, wish.protocol);
    MFD_CLOSE int fd = -1;
    int added;

    if (call->pid != 0 && mfd_target_in_netns(call->pid, &agent->netns)) {
        wish.is_here = mfd_cgroup_has(&agent->cgroup, call->pid);
        wish.netns = birthplace(agent, &wish);
    }
    if (wish.netns != MFD_ANY)
        fd = mfd_birth(agent, &wish);
    if (wish.netns == MFD_ANY || (fd == -EMFILE && wish.netns == MFD_NETNS_OWN)) {
        mfd_answer_continue(agent, call);
        return;
    }
    if (fd < 0) {
        mfd_answer(agent, call, fd == -EMFILE || fd == -EAGAIN ? -ENFILE : fd);
        return;
    }
    added = is_leased ? mfd_answer_fd(call, fd, cloexec) : give(call, &fd, cloexec);
    if (added == -ENOENT) {
        agent->stats->vanished++;
        return;
    }
    if (added < 0 || !is_leased)
        mfd_answer(agent, call, added);
    if (added < 0)
        return;
    agent->stats->sockets++;
    if (is_leased)
        mfd_leases_put(&agent->leases, mfd_take_fd(&fd), wish.domain, added, call->received_ns);
}

/* --- taking up ------------------------------------------------------------------------------------------- */

/* Room for one more fd if need be. */
static int reopen(struct mfd_agent *agent, pid_t pid, int fd, int *ret_fd)
{
    int error = mfd_target_open_fd(pid, fd, ret_fd);

    if (error != -EMFILE)
        return error;
    mfd_leases_drop_all(&agent->leases);
    mfd_target_forget_all();
    return mfd_target_open_fd(pid, fd, ret_fd);
}

/* mfd_socket_take_up - the file that the target has at fd, and what it is
 * Its lease is over afterwards.
 * Return: 0; -EBADF; -EPERM; -ESRCH; -EMFILE. */
int mfd_socket_take_up(struct mfd_agent *agent, pid_t pid, int fd, struct mfd_socket *ret_socket)
{
    struct mfd_socket socket = {
        .fd = -1, .protocol = IPPROTO_TCP, .netns = MFD_NETNS_OWN, .leased = true};
    int error;

    if (mfd_leases_take(&agent->leases, pid, fd, &socket.fd, &socket.domain) < 0) {
        error = reopen(agent, pid, fd, &socket.fd);
        if (error < 0)
            return error;
        socket.protocol = protocol_of(socket.fd);
        if (mfd_socket_option(socket.fd, SOL_SOCKET, SO_DOMAIN, &socket.domain) < 0)
            socket.domain = -1;
        socket.leased = mfd_leases_release_same(&agent->leases, socket.fd);
        agent->stats->adopted += socket.protocol == IPPROTO_TCP && !socket.leased;
    }
    if (agent->netns.n_others > 0)
        socket.netns = mfd_netns_of(&agent->netns, socket.fd);
    *ret_socket = socket;
    return 0;
}

/* mfd_socket_let_go - give up the lease on what the target has at fd: the kernel acts on it next */
void mfd_socket_let_go(struct mfd_agent *agent, pid_t pid, int fd)
{
    MFD_RELEASE int own_fd = -1;
    int domain;

    if (agent->leases.n_held == 0)
        return;
    if (mfd_leases_take(&agent->leases, pid, fd, &own_fd, &domain) == 0)
        return;
    if (reopen(agent, pid, fd, &own_fd) == 0)
        (void)mfd_leases_release_same(&agent->leases, own_fd);
}
