/* parked.c - epoll registrations that wait for their socket's connect()
 *
 * Theory of operation: a socket for which a unix socket may stand in is replaced at connect(), and an epoll
 * instance knows it by its open file. So where stand-ins are possible, EPOLL_CTL_ADD of a TCP socket on which
 * nothing has happened yet is answered 0 and kept here; it is carried out when it is decided which file
 * it is about: connected in place, replaced, denied, listening, or the listening socket that bind() was
 * handed. No instance ever holds a file that is about to go, so nothing has to be repaired.
 *
 * Until it is carried out,
 *   ADD again    EEXIST        MOD   the new events       DEL   forgotten
 * and what the kernel would refuse (EBADF, EINVAL, EPERM, EFAULT) is left to it: it sees the same call.
 * What is parked, and for how long, is in parked_table.c.
 *
 * A program can tell by one thing: an instance with a socket that was never connected reports EPOLLHUP and
 * EPOLLOUT of it, and nothing while the registration is parked.
 *
 * Limits: parked_table.c's. What finds no room there is registered at once.
 * Source: epoll_ctl(2), fs/eventpoll.c (do_epoll_ctl), net/ipv4/tcp.c (tcp_poll). */
#include <assert.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "kernel.h"
#include "meshfd.h"

static_assert(MFD_PARKED_MAX <= MFD_REGISTRATIONS_MAX, "all of one socket can be due at once");

/* EPOLLEXCLUSIVE_OK_BITS of fs/eventpoll.c */
#define EXCLUSIVE_BITS                                                                             \
    (EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLWAKEUP | EPOLLET | EPOLLEXCLUSIVE)

static struct mfd_registrations due;

static bool is_tcp(int fd)
{
    int ignored;

    return mfd_socket_option(fd, IPPROTO_TCP, TCP_NODELAY, &ignored) == 0;
}

/* --- epoll_ctl() ------------------------------------------------------------------------------------------ */

struct request { /* an epoll_ctl() */
    const struct mfd_notification *call;
    int epoll_fd;
    int op;
    int fd;
    struct epoll_event event;
};

static struct mfd_parked_one *find(struct mfd_agent *agent, const struct request *request,
                                   uint64_t cookie)
{
    return mfd_parked_find(&agent->parked, request->call->pid, request->epoll_fd, request->fd,
                           cookie);
}

static int park(struct mfd_agent *agent, const struct request *request, int own_fd, uint64_t cookie)
{
    const struct mfd_parked_request parked = {
        .pid = request->call->pid,
        .epoll_fd = request->epoll_fd,
        .fd = request->fd,
        .own_fd = own_fd,
        .cookie = cookie,
        .now_ns = request->call->received_ns,
        .event = request->event,
    };

    return mfd_parked_put(&agent->parked, &parked);
}

static bool read_event(struct request *request)
{
    return mfd_target_read(request->call->pid, request->call->call.args[3], &request->event,
                           sizeof(request->event)) == 0;
}

/* Return: the answer, or 1: it is the kernel's. */
static int add(struct mfd_agent *agent, struct request *request)
{
    MFD_RELEASE int fd = -1;
    uint64_t cookie;
    int error;

    if (mfd_target_open_fd(request->call->pid, request->fd, &fd) < 0)
        return 1;
    cookie = mfd_socket_cookie(fd);
    if (cookie == 0)
        return 1;
    if (!is_tcp(fd) || mfd_inplace_look(fd) != MFD_LOOK_FRESH) {
        mfd_known_add(&agent->parked.registered, cookie);
        return 1;
    }
    if (!read_event(request))
        return 1;
    if ((request->event.events & EPOLLEXCLUSIVE) != 0 &&
        (request->event.events & ~(uint32_t)EXCLUSIVE_BITS) != 0)
        return 1;
    error = mfd_epoll_has(request->call->pid, request->epoll_fd, request->fd);
    if (error == 0 && mfd_notify_is_alive(request->call)) {
        if (find(agent, request, cookie) != NULL)
            return -EEXIST;
        if (park(agent, request, fd, cookie) == 0)
            return 0;
    }
    mfd_known_add(&agent->parked.registered, cookie);
    return 1;
}

/* Return: the answer, or 1: it is the kernel's. */
static int change(struct mfd_agent *agent, struct request *request)
{
    MFD_RELEASE int fd = -1;
    struct mfd_parked_one *one;

    if (mfd_target_open_fd(request->call->pid, request->fd, &fd) < 0)
        return 1;
    one = find(agent, request, mfd_socket_cookie(fd));
    if (one == NULL)
        return 1;
    if (request->op == EPOLL_CTL_DEL) {
        mfd_parked_give_up(&agent->parked, one);
        return 0;
    }
    if (!read_event(request))
        return -EFAULT;
    if (((request->event.events | one->event.events) & EPOLLEXCLUSIVE) != 0)
        return -EINVAL;
    one->event = request->event;
    return 0;
}

/* mfd_epoll_ctl_handle - answer epoll_ctl() */
void mfd_epoll_ctl_handle(struct mfd_agent *agent, const struct mfd_notification *call)
{
    struct request request = {
        .call = call,
        .epoll_fd = (int)call->call.args[0],
        .op = (int)call->call.args[1],
        .fd = (int)call->call.args[2],
    };
    int answer = 1;

    if (call->pid != 0 && request.op == EPOLL_CTL_ADD)
        answer = add(agent, &request);
    else if (call->pid != 0 && (request.op == EPOLL_CTL_MOD || request.op == EPOLL_CTL_DEL) &&
             mfd_parked_has_fd(&agent->parked, request.fd))
        answer = change(agent, &request);
    agent->stats->parked = agent->parked.n;
    if (answer == 1)
        mfd_answer_continue(agent, call);
    else
        mfd_answer(agent, call, answer);
}

/* --- carrying out ------------------------------------------------------------------------------------------- */

/* Return: whether anything was parked. */
static bool carry_out(struct mfd_agent *agent, uint64_t cookie, int file_fd)
{
    pid_t pid = mfd_parked_due(&agent->parked, cookie, &due);
    int error;

    if (pid == 0)
        return false;
    error = mfd_epoll_register(&due, file_fd);
    mfd_parked_done(&agent->parked, cookie);
    agent->stats->parked = agent->parked.n;
    if (error < 0)
        mfd_control_notice(agent, MFD_NOTICE_PARKED, pid, -error, NULL, MFD_ANY);
    return true;
}

/* mfd_parked_replace - what is parked for the socket of this cookie is registered of another file */
void mfd_parked_replace(struct mfd_agent *agent, uint64_t cookie, int file_fd)
{
    if (carry_out(agent, cookie, file_fd))
        mfd_known_add(&agent->parked.registered, mfd_socket_cookie(file_fd));
}

/* mfd_parked_keep - this socket stays: register what is parked for it */
void mfd_parked_keep(struct mfd_agent *agent, int socket_fd)
{
    uint64_t cookie = agent->parked.n == 0 ? 0 : mfd_socket_cookie(socket_fd);

    if (cookie != 0 && carry_out(agent, cookie, socket_fd))
        mfd_known_add(&agent->parked.registered, cookie);
}

/* mfd_parked_settle - the same for the socket that the target has at fd, which the kernel acts on next */
void mfd_parked_settle(struct mfd_agent *agent, pid_t pid, int fd)
{
    MFD_RELEASE int own_fd = -1;

    if (agent->parked.n > 0 && mfd_target_open_fd(pid, fd, &own_fd) == 0)
        mfd_parked_keep(agent, own_fd);
}
