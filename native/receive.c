/* receive.c - recvfrom(), recvmsg() and recvmmsg() in a transparent service that routes UDP
 *
 * Theory of operation: the source of a datagram from an endpoint is to read as the address that the program had
 * sent to. The kernel knows nothing of that, and nobody can look at its answer; so the agent receives, through
 * a duplicate of the program's socket, names the source anew (told.c), and writes all of it to the program's
 * memory. Only on UDP sockets: everything else is the kernel's. A blocking socket without a datagram waits in
 * waits.c.
 *
 * recvmmsg() goes on to the number that was asked for, or after the first only with what is there
 * (MSG_WAITFORONE), or until its time is over, which is looked at after each datagram, as the kernel does it.
 * After MFD_MESSAGES_TURN datagrams others have their turn, and a call that does not block ends.
 *
 * What the kernel would say first, it says: nothing is received before the program's message could be read.
 * As in the kernel, a datagram whose place cannot be written is lost (EFAULT).
 *
 * An error after the first datagram ends the call with what was received, and the kernel keeps the error for the
 * socket's next call (do_recvmmsg(), sk_err). The agent cannot put an error back, so it looks before it receives
 * on, and leaves one that is there alone. Limits: an error of the program's memory (EFAULT and the like) is not
 * kept; nor is one of a socket with an error queue, where poll(2) cannot tell that from a full queue.
 * Source: recvmsg(2), recvmmsg(2), net/socket.c (do_recvmmsg), net/ipv4/udp.c (udp_recvmsg). */
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>

#include "meshfd.h"

static int flags_of(const struct mfd_notification *call)
{
    return (int)call->call.args[call->call.kind == MFD_CALL_RECVMSG ? 2 : 3];
}

static bool is_many(const struct mfd_notification *call)
{
    return call->call.kind == MFD_CALL_RECVMMSG;
}

/* Where the msghdr of this index is; 0: recvfrom() has none. */
static uint64_t message_at(const struct mfd_notification *call, uint32_t index)
{
    if (call->call.kind == MFD_CALL_RECVFROM)
        return 0;
    return is_many(call) ? mfd_message_at(call, call->call.args[1], index) : call->call.args[1];
}

static int read_message(const struct mfd_notification *call, uint64_t at, struct mfd_message *ret)
{
    if (at != 0)
        return mfd_message_read(call, at, ret);
    *ret = (struct mfd_message){
        .iov = call->call.args[1], .n_iov = call->call.args[2], .name = call->call.args[4]};
    return 0;
}

/* Where the length of the source's address is kept: in the msghdr, or where recvfrom() says. */
static uint64_t name_size_at(const struct mfd_notification *call, uint64_t at)
{
    if (at == 0)
        return call->call.args[5];
    return at + (call->call.compat ? sizeof(uint32_t) : offsetof(struct msghdr, msg_namelen));
}

/* Return: what the call returns for one datagram, or -errno. */
static int receive_one(struct mfd_agent *agent, const struct mfd_notification *call, int fd,
                       uint32_t index, int flags)
{
    const uint64_t at = message_at(call, index);
    union mfd_sockaddr source = {0};
    struct mfd_message message;
    struct msghdr filled;
    ssize_t n;
    int error = read_message(call, at, &message);

    if (error == 0)
        error = mfd_message_room(call, &message, &filled);
    if (error < 0)
        return error;
    if (!mfd_notify_is_alive(call))
        return -ESRCH;
    filled.msg_name = &source;
    filled.msg_namelen = sizeof(source);
    n = recvmsg(fd, &filled, flags | MSG_DONTWAIT);
    if (n < 0)
        return -errno;
    error = mfd_message_scatter(call, &message, at, &filled, (size_t)n);
    if (error == 0 && message.name != 0) {
        (void)mfd_told_translate(agent, fd, &source, &filled.msg_namelen);
        error = mfd_told_write(call->pid, message.name, name_size_at(call, at), &source,
                               filled.msg_namelen);
    }
    return error < 0 ? error : (int)n;
}

/* The time that recvmmsg() has, read and written in the layout of its ABI. */
struct timeout {
    bool is_given;
    uint64_t ns;
};

static int read_timeout(const struct mfd_notification *call, struct timeout *ret)
{
    const uint64_t at = is_many(call) ? call->call.args[4] : 0;
    int64_t wide[2] = {0};
    int32_t narrow[2];
    int error;

    *ret = (struct timeout){.is_given = at != 0};
    if (at == 0)
        return 0;
    if (call->call.time32) {
        error = mfd_target_read(call->pid, at, narrow, sizeof(narrow));
        wide[0] = narrow[0];
        wide[1] = narrow[1];
    } else {
        error = mfd_target_read(call->pid, at, wide, sizeof(wide));
    }
    if (error < 0)
        return error;
    if (call->call.compat)
        wide[1] &= UINT32_MAX; /* what is above is padding (kernel/time/time.c, get_timespec64) */
    if (wide[0] < 0 || wide[1] < 0 || wide[1] >= (int64_t)MFD_NS_PER_S)
        return -EINVAL;
    if (wide[0] > INT32_MAX)
        wide[0] = INT32_MAX; /* 68 years; the sum must not overflow */
    ret->ns = (uint64_t)wide[0] * MFD_NS_PER_S + (uint64_t)wide[1];
    return 0;
}

static int write_left(const struct mfd_notification *call, uint64_t left_ns)
{
    const int64_t wide[2] = {(int64_t)(left_ns / MFD_NS_PER_S), (int64_t)(left_ns % MFD_NS_PER_S)};
    const int32_t narrow[2] = {(int32_t)wide[0], (int32_t)wide[1]};

    return call->call.time32
               ? mfd_target_write(call->pid, call->call.args[4], narrow, sizeof(narrow))
               : mfd_target_write(call->pid, call->call.args[4], wide, sizeof(wide));
}

static uint32_t n_messages(const struct mfd_notification *call)
{
    return is_many(call) ? (uint32_t)call->call.args[2] : 1;
}

/* Is POLLERR an error for the socket's next call? Only where nobody fills an error queue (net/ipv4/udp.c,
 * udp_poll; datagram_poll). */
static bool has_no_error_queue(int fd)
{
    static const struct {
        int level;
        int name;
    } queued[] = {
        {IPPROTO_IP, IP_RECVERR},
        {IPPROTO_IPV6, IPV6_RECVERR},
        {SOL_SOCKET, SO_TIMESTAMPING},
        {SOL_SOCKET, SO_ZEROCOPY},
    };
    int value;

    for (size_t i = 0; i < MFD_COUNT(queued); i++)
        if (mfd_socket_option(fd, queued[i].level, queued[i].name, &value) == 0 && value != 0)
            return false;
    return true;
}

enum next {
    NEXT_NONE,
    NEXT_DATAGRAM,
    NEXT_ERROR
};

/* What the next call of the socket would find. Looking consumes no error, which a receive would. */
static enum next look_at_next(int fd)
{
    struct pollfd polled = {.fd = fd, .events = POLLIN};

    if (poll(&polled, 1, 0) <= 0)
        return NEXT_NONE;
    if ((polled.revents & POLLERR) != 0 && has_no_error_queue(fd))
        return NEXT_ERROR;
    return (polled.revents & POLLIN) != 0 ? NEXT_DATAGRAM : NEXT_NONE;
}

/* One of many was received. Return: whether that was the last; -errno. */
static int count_one(const struct mfd_notification *call, uint32_t index, int size)
{
    struct timeout timeout = {0};
    int error = mfd_message_set_length(call, message_at(call, index), (uint32_t)size);

    if (error == 0)
        error = read_timeout(call, &timeout);
    if (error < 0 || !timeout.is_given)
        return error;
    return mfd_now_ns() - call->received_ns >= timeout.ns;
}

/* @last_ns: when the last datagram was received, which is when the kernel looks at the time
 * Return: 0; -EFAULT. */
static int tell_time_left(const struct mfd_notification *call, uint64_t last_ns)
{
    uint64_t past_ns = last_ns - call->received_ns;
    struct timeout timeout;
    int error = read_timeout(call, &timeout);

    if (error < 0 || !timeout.is_given)
        return error;
    return write_left(call, past_ns < timeout.ns ? timeout.ns - past_ns : 0);
}

static bool may_wait(const struct mfd_notification *call, const struct mfd_trial *trial)
{
    const int flags = flags_of(call);

    if (trial->progress > 0 && (flags & MSG_WAITFORONE) != 0)
        return false;
    return (flags & (MSG_DONTWAIT | MSG_ERRQUEUE)) == 0 && trial->wake == MFD_WAKE_READY &&
           !mfd_socket_is_nonblocking(trial->fd);
}

/* @ret_next: NEXT_DATAGRAM: one was tried for
 * Return: of many 0, or 1 when that was the last; of one what the call returns; or -errno. */
static int receive_next(struct mfd_agent *agent, const struct mfd_notification *call,
                        struct mfd_trial *trial, enum next *ret_next)
{
    const int flags = flags_of(call) & ~(is_many(call) ? MSG_WAITFORONE : 0);
    int result;

    *ret_next = trial->progress > 0 ? look_at_next(trial->fd) : NEXT_DATAGRAM;
    if (*ret_next != NEXT_DATAGRAM)
        return *ret_next == NEXT_NONE ? -EAGAIN : 0;
    result = receive_one(agent, call, trial->fd, trial->progress, flags);
    if (result < 0 || !is_many(call))
        return result;
    result = count_one(call, trial->progress, result);
    if (result >= 0)
        trial->progress++;
    return result;
}

/* @trial: progress is how many datagrams were received */
static bool try_receive(struct mfd_agent *agent, const struct mfd_notification *call,
                        struct mfd_trial *trial)
{
    const uint32_t begin = trial->progress;
    const uint32_t end = begin + MFD_MESSAGES_TURN;
    int result = trial->wake == MFD_WAKE_READY ? 0 : -EAGAIN;
    enum next next = NEXT_DATAGRAM;

    while (result == 0 && next == NEXT_DATAGRAM && trial->progress < n_messages(call) &&
           trial->progress < end) {
        result = receive_next(agent, call, trial, &next);
        if (!is_many(call))
            break;
    }
    if (trial->wake == MFD_WAKE_SIGNAL && trial->progress == 0)
        return false;
    trial->again =
        result == 0 && next != NEXT_ERROR && trial->progress == end && end < n_messages(call);
    if ((result == -EAGAIN || trial->again) && may_wait(call, trial))
        return false;
    if (trial->progress > 0) {
        result = tell_time_left(call, trial->progress > begin ? mfd_now_ns() : trial->progress_ns);
        if (result == 0)
            result = (int)trial->progress;
    }
    trial->result = result;
    return true;
}

static void receive_in_place(struct mfd_agent *agent, const struct mfd_notification *call, int fd)
{
    const struct mfd_wait_plan plan = {
        .proceed = try_receive,
        .events = EPOLLIN,
        .timeout_ns = mfd_socket_timeout_ns(fd, SO_RCVTIMEO),
    };
    struct mfd_trial trial = {.fd = fd};
    struct timeout timeout;

    trial.result = read_timeout(call, &timeout); /* a bad one is said first */
    if (trial.result == 0 && !try_receive(agent, call, &trial)) {
        if (mfd_wait_for(agent, call, fd, &plan, trial.progress) == 0)
            return;
        /* too many wait; recv(2) has the word */
        trial.result = trial.progress > 0 ? (int)trial.progress : -ENOMEM;
    }
    mfd_release_at(&fd);
    mfd_answer(agent, call, trial.result);
}

/* mfd_receive_handle - answer recvfrom(), recvmsg(), recvmmsg() */
void mfd_receive_handle(struct mfd_agent *agent, const struct mfd_notification *call)
{
    struct mfd_socket socket = {.fd = -1};
    int error = call->pid == 0
                    ? -ENOENT
                    : mfd_socket_take_up(agent, call->pid, (int)call->call.args[0], &socket);

    if (error == 0 && socket.protocol == IPPROTO_UDP && n_messages(call) > 0) {
        receive_in_place(agent, call, mfd_take_fd(&socket.fd));
        return;
    }
    if (error < 0)
        mfd_account_unseen(agent, call, error, NULL);
    mfd_release_at(&socket.fd);
    mfd_answer_continue(agent, call);
}
