/* parked.c - epoll registrations that wait for their socket's connect()
 *
 * Theory of operation: a socket for which a unix socket may stand in is replaced at connect(), and an epoll
 * instance knows it by its open file. So where stand-ins are possible, EPOLL_CTL_ADD of a TCP socket on which
 * nothing has happened yet is answered 0 and kept here; it is carried out when it is decided which file
 * it is about: connected in place, replaced, denied, listening, or the listening socket that bind() was
 * handed. No instance ever holds a file that is about to go, so nothing has to be repaired.
 *
 * A registration is named as the kernel names it: instance, open file, fd number. The socket is known by
 * its SO_COOKIE; of the instance the agent holds a duplicate, which nobody can notice: an instance keeps no
 * file open. Until it is carried out,
 *   ADD again    EEXIST        MOD   the new events       DEL   forgotten
 * and what the kernel would refuse (EBADF, EINVAL, EPERM, EFAULT) is left to it: it sees the same call.
 *
 * A program can tell by one thing: an instance with a socket that was never connected reports EPOLLHUP and
 * EPOLLOUT of it, and nothing while the registration is parked.
 *
 * Limits: MFD_PARKED_MAX, MFD_PARKED_INSTANCES_MAX. Every SWEEP_NS, and when there is no room, those are
 * dropped whose program no longer has the socket at the fd: closed, or ended. What finds no room is
 * registered at once. A socket that is in an instance, for that reason or because it was carried out in place
 * (its connection failed, say, and it connects anew), is remembered by a bit of a hash of its cookie, so that
 * its registrations are looked for when it is replaced after all (epoll.c). The bits are cleared by halves,
 * REGISTERED_MAX sockets each.
 * Source: epoll_ctl(2), fs/eventpoll.c (do_epoll_ctl), net/ipv4/tcp.c (tcp_poll). */
#include <assert.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "kernel.h"
#include "meshfd.h"

#define SWEEP_NS (10 * MFD_NS_PER_S)
#define REGISTERED_MAX (MFD_REGISTERED_BITS / 4) /* fewer than one lookup in four is in vain */

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

/* A TCP socket that has neither connected, nor tried to, nor listens: what poll(2) says of no other. */
static bool is_fresh(int fd)
{
    struct pollfd polled = {.fd = fd, .events = POLLIN | POLLOUT | POLLRDHUP};

    return poll(&polled, 1, 0) == 1 && polled.revents == (POLLOUT | POLLHUP);
}

/* --- what is registered ----------------------------------------------------------------------------------- */

static uint64_t *word_of(struct mfd_registered *registered, unsigned half, uint64_t cookie,
                         uint64_t *ret_bit)
{
    uint64_t hash = cookie * 0x9e3779b97f4a7c15ULL; /* 2^64 / the golden ratio, Knuth vol. 3, 6.4 */

    *ret_bit = 1ULL << (hash >> 58);
    return &registered->bits[half][(hash >> 32) % (MFD_REGISTERED_BITS / 64)];
}

static void remember(struct mfd_registered *registered, uint64_t cookie)
{
    uint64_t bit;

    if (registered->n++ == REGISTERED_MAX) {
        registered->half ^= 1;
        memset(registered->bits[registered->half], 0, sizeof(registered->bits[0]));
        registered->n = 1;
    }
    *word_of(registered, registered->half, cookie, &bit) |= bit;
}

/* mfd_parked_is_registered - may this socket sit in an epoll instance? */
bool mfd_parked_is_registered(struct mfd_agent *agent, int socket_fd)
{
    uint64_t cookie = mfd_socket_cookie(socket_fd);

    for (unsigned half = 0; half < 2; half++) {
        uint64_t bit;

        if ((*word_of(&agent->parked.registered, half, cookie, &bit) & bit) != 0)
            return true;
    }
    return false;
}

/* --- what is parked -------------------------------------------------------------------------------------- */

static void give_up(struct mfd_parked *parked, struct mfd_parked_one *one)
{
    if (--parked->n_users[one->instance] == 0)
        mfd_close_at(&parked->instances[one->instance]);
    one->cookie = 0;
    parked->n--;
}

static struct mfd_parked_one *find_slot(struct mfd_parked *parked)
{
    for (unsigned i = 0; i < MFD_PARKED_MAX; i++)
        if (parked->ones[i].cookie == 0)
            return &parked->ones[i];
    return NULL;
}

/* Does its program still have that socket at that number? */
static bool is_there(const struct mfd_parked_one *one)
{
    MFD_RELEASE int fd = -1;

    return mfd_target_open_fd(one->pid, one->fd, &fd) == 0 && mfd_socket_cookie(fd) == one->cookie;
}

static void sweep(struct mfd_parked *parked, uint64_t now_ns)
{
    for (unsigned i = 0; parked->n > 0 && i < MFD_PARKED_MAX; i++)
        if (parked->ones[i].cookie != 0 && !is_there(&parked->ones[i]))
            give_up(parked, &parked->ones[i]);
    parked->sweep_ns = now_ns + SWEEP_NS;
}

/* mfd_parked_expire - look whether what is parked can still be carried out */
void mfd_parked_expire(struct mfd_agent *agent, uint64_t now_ns)
{
    if (agent->parked.n > 0 && agent->parked.sweep_ns <= now_ns)
        sweep(&agent->parked, now_ns);
}

/* mfd_parked_next_ns - when to look; UINT64_MAX: nothing is parked */
uint64_t mfd_parked_next_ns(const struct mfd_parked *parked)
{
    return parked->n == 0 ? UINT64_MAX : parked->sweep_ns;
}

/* Where the target's epoll instance is among those that we hold. Return: the index, or -ENOENT. */
static int find_instance(const struct mfd_parked *parked, pid_t pid, int epoll_fd)
{
    for (unsigned i = 0; i < MFD_PARKED_INSTANCES_MAX; i++)
        if (parked->n_users[i] > 0 &&
            mfd_target_same_file(pid, epoll_fd, parked->instances[i]) == 1)
            return (int)i;
    return -ENOENT;
}

static int hold_instance(struct mfd_parked *parked, pid_t pid, int epoll_fd)
{
    int index = find_instance(parked, pid, epoll_fd);
    int error;

    if (index >= 0)
        return index;
    for (index = 0; index < MFD_PARKED_INSTANCES_MAX; index++)
        if (parked->n_users[index] == 0)
            break;
    if (index == MFD_PARKED_INSTANCES_MAX)
        return -ENOSPC;
    error = mfd_target_open_fd(pid, epoll_fd, &parked->instances[index]);
    return error < 0 ? error : index;
}

/* --- epoll_ctl() ------------------------------------------------------------------------------------------ */

struct request { /* an epoll_ctl() */
    const struct mfd_notification *call;
    int epoll_fd;
    int op;
    int fd;
    struct epoll_event event;
};

static struct mfd_parked_one *find(struct mfd_parked *parked, const struct request *request,
                                   uint64_t cookie)
{
    for (unsigned i = 0; i < MFD_PARKED_MAX; i++) {
        struct mfd_parked_one *one = &parked->ones[i];

        if (one->cookie == cookie && one->fd == request->fd &&
            mfd_target_same_file(request->call->pid, request->epoll_fd,
                                 parked->instances[one->instance]) == 1)
            return one;
    }
    return NULL;
}

static bool has_fd(const struct mfd_parked *parked, int fd)
{
    for (unsigned i = 0; i < MFD_PARKED_MAX; i++)
        if (parked->ones[i].cookie != 0 && parked->ones[i].fd == fd)
            return true;
    return false;
}

static bool read_event(struct request *request)
{
    return mfd_target_read(request->call->pid, request->call->call.args[3], &request->event,
                           sizeof(request->event)) == 0;
}

static int park(struct mfd_agent *agent, const struct request *request, uint64_t cookie)
{
    struct mfd_parked *parked = &agent->parked;
    pid_t pid = request->call->pid;
    struct mfd_parked_one *slot;
    int instance;

    if (parked->n == MFD_PARKED_MAX)
        sweep(parked, request->call->received_ns);
    slot = find_slot(parked);
    if (slot == NULL)
        return -ENOSPC;
    instance = hold_instance(parked, pid, request->epoll_fd);
    if (instance < 0)
        return instance;
    if (parked->n++ == 0)
        parked->sweep_ns = request->call->received_ns + SWEEP_NS;
    parked->n_users[instance]++;
    *slot = (struct mfd_parked_one){
        .cookie = cookie,
        .instance = (uint32_t)instance,
        .pid = pid,
        .fd = request->fd,
        .event = request->event,
    };
    return 0;
}

/* Return: the answer, or 1: it is the kernel's. */
static int add(struct mfd_agent *agent, struct request *request)
{
    MFD_RELEASE int fd = -1;
    uint64_t cookie;
    int error;

    if (mfd_target_open_fd(request->call->pid, request->fd, &fd) < 0 || !is_tcp(fd))
        return 1;
    cookie = mfd_socket_cookie(fd);
    if (!is_fresh(fd)) {
        remember(&agent->parked.registered, cookie);
        return 1;
    }
    if (!read_event(request))
        return 1;
    if ((request->event.events & EPOLLEXCLUSIVE) != 0 &&
        (request->event.events & ~(uint32_t)EXCLUSIVE_BITS) != 0)
        return 1;
    error = mfd_epoll_has(request->call->pid, request->epoll_fd, request->fd);
    if (error == 0 && mfd_notify_is_alive(request->call)) {
        if (find(&agent->parked, request, cookie) != NULL)
            return -EEXIST;
        if (park(agent, request, cookie) == 0)
            return 0;
    }
    remember(&agent->parked.registered, cookie);
    return 1;
}

/* Return: the answer, or 1: it is the kernel's. */
static int change(struct mfd_agent *agent, struct request *request)
{
    MFD_RELEASE int fd = -1;
    struct mfd_parked_one *one;

    if (mfd_target_open_fd(request->call->pid, request->fd, &fd) < 0)
        return 1;
    one = find(&agent->parked, request, mfd_socket_cookie(fd));
    if (one == NULL)
        return 1;
    if (request->op == EPOLL_CTL_DEL) {
        give_up(&agent->parked, one);
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
             agent->parked.n > 0 && has_fd(&agent->parked, request.fd))
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
    struct mfd_parked *parked = &agent->parked;
    pid_t pid = 0;
    int error;

    if (parked->n == 0)
        return false;
    due.n = 0;
    for (unsigned i = 0; i < MFD_PARKED_MAX; i++) {
        struct mfd_parked_one *one = &parked->ones[i];

        if (one->cookie != cookie)
            continue;
        pid = one->pid;
        due.found[due.n++] = (struct mfd_registration){
            .epoll_fd = parked->instances[one->instance], .at_fd = one->fd, .event = one->event};
    }
    error = mfd_epoll_register(&due, file_fd);
    for (unsigned i = 0; due.n > 0 && i < MFD_PARKED_MAX; i++)
        if (parked->ones[i].cookie == cookie)
            give_up(parked, &parked->ones[i]);
    agent->stats->parked = parked->n;
    if (error < 0)
        mfd_control_notice(agent, MFD_NOTICE_PARKED, pid, -error, NULL, MFD_ANY);
    return due.n > 0;
}

/* mfd_parked_replace - what is parked for the socket of this cookie is registered of another file */
void mfd_parked_replace(struct mfd_agent *agent, uint64_t cookie, int file_fd)
{
    (void)carry_out(agent, cookie, file_fd);
}

/* mfd_parked_keep - this socket stays: register what is parked for it */
void mfd_parked_keep(struct mfd_agent *agent, int socket_fd)
{
    uint64_t cookie = agent->parked.n == 0 ? 0 : mfd_socket_cookie(socket_fd);

    if (cookie != 0 && carry_out(agent, cookie, socket_fd))
        remember(&agent->parked.registered, cookie);
}

/* mfd_parked_settle - the same for the socket that the target has at fd, which the kernel acts on next */
void mfd_parked_settle(struct mfd_agent *agent, pid_t pid, int fd)
{
    MFD_RELEASE int own_fd = -1;

    if (agent->parked.n > 0 && mfd_target_open_fd(pid, fd, &own_fd) == 0)
        mfd_parked_keep(agent, own_fd);
}
