/* sources.c - what the agent's loop waits for, beside calls
 *
 * Theory of operation: the loop sleeps once for each call, and the program does not run on before it sleeps. But
 * poll(2) looks at every fd before it sleeps and after, and sets a timer and takes it back. So all that is seldom
 * ready is in one epoll instance, and the loop polls that and the listeners:
 *
 *   CONTROL     the control channel, for what is wanted of it at the moment
 *   SIGNAL      a signalfd
 *   WAITS       sockets that calls wait for (waits.c)
 *   FORBIDDEN   children that try ports (forbidden.c)
 *   TIMER       a deadline has passed, perhaps
 *
 * The timer is set when a deadline is nearer than what it is set to, and left alone when that has moved on, as some
 * do with each call (target.c). So it rings early, at most once for each time that it was set.
 *
 * Listeners stay with poll: an epoll instance between would not wake the agent on the target's own CPU
 * (fs/eventpoll.c, ep_poll_callback, has but wake_up() and wake_up_sync() for that).
 * Source: epoll(7), timerfd_create(2). */
#include <sys/timerfd.h>

#include "meshfd.h"

static int watch(const struct mfd_sources *sources, int fd, enum mfd_source source, int op,
                 uint32_t events)
{
    struct epoll_event event = {.events = events, .data.u32 = source};

    return epoll_ctl(sources->epoll_fd, op, fd, &event) < 0 ? -errno : 0;
}

/* mfd_sources_open - wait for these
 * @fds: by enum mfd_source, up to TIMER; they stay the caller's
 * Return: 0 or -errno. */
int mfd_sources_open(struct mfd_sources *sources, const int fds[MFD_SOURCE_TIMER])
{
    int error = 0;

    *sources = (struct mfd_sources){.control_events = EPOLLIN, .timer_ns = UINT64_MAX};
    sources->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    sources->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (sources->epoll_fd < 0 || sources->timer_fd < 0)
        return -errno;
    for (enum mfd_source source = 0; error == 0 && source < MFD_SOURCE_TIMER; source++)
        error = watch(sources, fds[source], source, EPOLL_CTL_ADD, EPOLLIN);
    if (error == 0)
        error = watch(sources, sources->timer_fd, MFD_SOURCE_TIMER, EPOLL_CTL_ADD, EPOLLIN);
    return error;
}

/* mfd_sources_want - what the control channel is waited for, beside its end: EPOLLIN, EPOLLOUT, both, or neither
 * @control_fd: -1: it has ended */
void mfd_sources_want(struct mfd_sources *sources, int control_fd, uint32_t events)
{
    if (control_fd < 0 || events == sources->control_events)
        return;
    if (watch(sources, control_fd, MFD_SOURCE_CONTROL, EPOLL_CTL_MOD, events) == 0)
        sources->control_events = events;
}

/* mfd_sources_end_control - the control channel is about to be closed; a child may have it for a moment longer */
void mfd_sources_end_control(const struct mfd_sources *sources, int control_fd)
{
    (void)epoll_ctl(sources->epoll_fd, EPOLL_CTL_DEL, control_fd, NULL);
}

/* mfd_sources_await - the timer is ready at this time (mfd_now_ns()), or before; one that has passed: at once
 * @deadline_ns: UINT64_MAX: never */
void mfd_sources_await(struct mfd_sources *sources, uint64_t deadline_ns)
{
    const uint64_t at = deadline_ns > 0 ? deadline_ns : 1; /* 0 would switch it off */
    const struct itimerspec when = {
        .it_value = {.tv_sec = (time_t)(at / MFD_NS_PER_S), .tv_nsec = (long)(at % MFD_NS_PER_S)}};

    if (deadline_ns < sources->timer_ns &&
        timerfd_settime(sources->timer_fd, TFD_TIMER_ABSTIME, &when, NULL) == 0)
        sources->timer_ns = deadline_ns;
}

/* mfd_sources_take - the epoll instance is readable: what has happened? The timer has to be set anew then.
 * @ret_events: of epoll(7), by enum mfd_source; 0: nothing */
void mfd_sources_take(struct mfd_sources *sources, uint32_t ret_events[MFD_SOURCES])
{
    struct epoll_event events[MFD_SOURCES];
    int n = epoll_wait(sources->epoll_fd, events, MFD_SOURCES, 0);
    uint64_t rings;

    for (unsigned source = 0; source < MFD_SOURCES; source++)
        ret_events[source] = 0;
    for (int i = 0; i < n; i++)
        ret_events[events[i].data.u32] = events[i].events;
    if (ret_events[MFD_SOURCE_TIMER] == 0)
        return;
    while (read(sources->timer_fd, &rings, sizeof(rings)) > 0)
        continue;
    sources->timer_ns = UINT64_MAX;
}
