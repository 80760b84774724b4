/* inplace.c - connect a program's own open file, without waiting for it
 *
 * Theory of operation: the agent has a duplicate of the program's socket, so what it does to that is done to
 * the program's. It must not wait, so a blocking socket is made non-blocking for the one connect().
 *
 *   non-blocking socket   the errno of connect() is the answer (0, EINPROGRESS, EISCONN, ...)
 *   blocking socket       anything but EINPROGRESS and EALREADY is the answer, too. With those the attempt
 *                         goes on, and somebody has to wait for it:
 *                         - the kernel, on CONTINUE: the program's own connect() finds the socket connecting,
 *                           ignores its address argument and waits for that attempt, with the program's own
 *                           signals (net/ipv4/af_inet.c, __inet_stream_connect, SS_CONNECTING);
 *                         - waits.c, in a strict service, where the kernel must not be given the chance to
 *                           look at an address again; and where SO_SNDTIMEO is set, because to the kernel the
 *                           program's call would be the second, and end with EALREADY for EINPROGRESS.
 *
 * Asking. How an earlier attempt stands is told by another connect(); but if the socket has become unconnected
 * meanwhile, that would connect. So the question names an address that is too short: the kernel looks at the
 * socket's state first, and at the address only if it would connect; then it says EINVAL, before BPF programs of the
 * cgroup (BPF_CGROUP_INET4_CONNECT) can take it for an address. Security modules may look at it before: if the
 * socket is not unconnected after all, it is asked with an address of the other internet family.
 *
 * Not asked is a socket of TCP that is fresh by its looks (poll): there is nothing to ask about. Nor, outside strict, one that
 * is connected or connecting by its looks: its connect() is the kernel's, which says EISCONN, EALREADY, or how the
 * attempt ends.
 *
 * An attempt on this host is over when connect() returns, though that says EINPROGRESS: the answer was processed when
 * it let go of the socket. So it is looked at once before anybody waits for it.
 *
 * Races: another thread that changes O_NONBLOCK between our two fcntl() calls loses its change; one that reads or
 * writes then, in a strict service also while a socket that is connected is connected again, can hear EAGAIN.
 * Source: connect(2), socket(7) SO_SNDTIMEO, net/ipv4/tcp_ipv4.c (tcp_v4_connect). */
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "meshfd.h"

/* mfd_mode_enter - no call on fd blocks until mfd_mode_leave() */
struct mfd_mode mfd_mode_enter(int fd)
{
    struct mfd_mode mode = {.fd = fd, .flags = fcntl(fd, F_GETFL)};

    if ((mode.flags & O_NONBLOCK) == 0)
        (void)fcntl(fd, F_SETFL, mode.flags | O_NONBLOCK);
    return mode;
}

/* mfd_mode_none - for a socket whose connect() never waits: nothing is changed, nor put back */
struct mfd_mode mfd_mode_none(int fd)
{
    return (struct mfd_mode){.fd = fd, .flags = O_NONBLOCK};
}

/* mfd_mode_leave - as the program has it
 * Return: whether the socket is blocking. */
bool mfd_mode_leave(const struct mfd_mode *mode)
{
    bool blocking = (mode->flags & O_NONBLOCK) == 0;

    if (blocking)
        (void)fcntl(mode->fd, F_SETFL, mode->flags);
    return blocking;
}

/* mfd_inplace_ask - how does the earlier attempt of this TCP socket stand? Call with the mode entered.
 * Return: 0 (it has just connected), EISCONN, EALREADY, an errno that it has failed with; EAFNOSUPPORT:
 * there is none, the socket is unconnected. */
int mfd_inplace_ask(int fd, int domain)
{
    const struct sockaddr_in6 other = {.sin6_family = domain == AF_INET ? AF_INET6 : AF_INET};
    const struct sockaddr own = {.sa_family = (sa_family_t)domain};

    if (connect(fd, &own, sizeof(own.sa_family)) == 0)
        return 0;
    if (errno != EINVAL)
        return errno;
    if (mfd_inplace_is_closed(fd) && !mfd_inplace_has_error(fd))
        return EAFNOSUPPORT;
    return connect(fd, (const struct sockaddr *)&other, sizeof(other)) < 0 ? errno : 0;
}

/* mfd_inplace_is_closed - is this TCP socket unconnected, whether it has an error to tell or not? It is not asked,
 * and stays as it is. poll(2) does not tell it from one that is connected and shut down. */
bool mfd_inplace_is_closed(int fd)
{
    uint8_t state = 0; /* the first byte of struct tcp_info */
    socklen_t size = sizeof(state);

    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &state, &size) == 0 && state == TCP_CLOSE;
}

/* mfd_inplace_look - what this TCP socket is by its looks. It is not asked, and stays as it is.
 * FRESH: it is unconnected, and there is no attempt to ask about: one that has failed leaves an error, or the socket
 * shut down (net/ipv4/tcp.c, tcp_done, tcp_poll). But for MPTCP, which may leave neither once the error was told by
 * SO_ERROR; the next connect(), whatever its address, is ECONNABORTED then: so it has to be asked.
 * USED: another connect() does not reach its address: no attempt becomes unconnected again but by a call that is told
 * its end. */
enum mfd_look mfd_inplace_look(int fd)
{
    struct pollfd polled = {.fd = fd, .events = POLLIN | POLLOUT | POLLRDHUP};

    if (poll(&polled, 1, 0) < 0)
        return MFD_LOOK_OVER;
    if ((polled.revents & POLLHUP) == 0)
        return MFD_LOOK_USED;
    return polled.revents == (POLLOUT | POLLHUP) ? MFD_LOOK_FRESH : MFD_LOOK_OVER;
}

/* mfd_inplace_has_error - is there an error that nobody has been told? poll(2) does not consume it. */
bool mfd_inplace_has_error(int fd)
{
    struct pollfd polled = {.fd = fd};

    return poll(&polled, 1, 0) > 0 && (polled.revents & POLLERR) != 0;
}

/* Is the attempt over, whichever way? */
static bool is_over(int fd)
{
    struct pollfd polled = {.fd = fd, .events = POLLOUT};

    return poll(&polled, 1, 0) > 0;
}

/* What a connect() that waited says now. Return: EALREADY when it has to wait on. */
static int result_of_wait(int fd)
{
    int domain = AF_INET;
    struct mfd_mode mode;
    int error;

    (void)mfd_socket_option(fd, SOL_SOCKET, SO_DOMAIN, &domain);
    mode = mfd_mode_enter(fd);
    error = mfd_inplace_ask(fd, domain);
    (void)mfd_mode_leave(&mode);
    if (error == EISCONN)
        return 0; /* another thread's connect() has been told first */
    if (error == EAFNOSUPPORT)
        return ECONNABORTED; /* another thread has ended the attempt; __inet_stream_connect() */
    return error;
}

enum { /* trial->progress */
    MADE_IT,
    ASKS_ABOUT_IT
};

static bool try_to_end(struct mfd_agent *agent, const struct mfd_notification *call,
                       struct mfd_trial *trial)
{
    int error = result_of_wait(trial->fd);

    (void)agent;
    (void)call;
    if (error == EALREADY && trial->wake != MFD_WAKE_TIMEOUT)
        return false;
    if (error == EALREADY && trial->progress == MADE_IT)
        error = EINPROGRESS;
    trial->result = -error;
    return true;
}

/* mfd_inplace_answer - the answer to a connect() that was carried out with this errno
 * @fd: taken over, and closed before the answer: the program may close the socket next, and must find
 * itself its only holder
 * @first: the call made the attempt; else it asks about an earlier one */
void mfd_inplace_answer(struct mfd_agent *agent, const struct mfd_notification *call, int fd,
                        bool blocking, int error, bool first)
{
    const bool strict = (agent->flags & MFD_SETUP_STRICT) != 0;
    bool under_way = blocking && (error == EINPROGRESS || error == EALREADY);

    if (call->call.kind != MFD_CALL_CONNECT) {
        /* TCP Fast Open (send.c): the program's own call finds the attempt, and sends */
        under_way = under_way || error == 0;
    } else if (under_way) {
        const struct mfd_wait_plan plan = {
            .proceed = try_to_end,
            .events = EPOLLOUT,
            .timeout_ns = mfd_socket_timeout_ns(fd, SO_SNDTIMEO),
        };

        const bool is_ours = strict || plan.timeout_ns != 0;

        if (is_ours && is_over(fd)) {
            error = result_of_wait(fd);
            under_way = error == EALREADY;
        }
        if (is_ours && under_way &&
            mfd_wait_for(agent, call, fd, &plan, first ? MADE_IT : ASKS_ABOUT_IT) == 0)
            return;
        if (strict && under_way) { /* too many wait */
            under_way = false;
            error = result_of_wait(fd);
            if (error == EALREADY)
                error = EAGAIN; /* connect(2) has the word */
        }
    }
    mfd_release_at(&fd);
    if (under_way)
        mfd_answer_continue(agent, call);
    else
        mfd_answer(agent, call, -error);
}
