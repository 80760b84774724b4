/* What the loop waits for, beside calls: which source is ready, and when the timer rings. */
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

#include "check.h"

static struct mfd_sources sources;
static int fds[MFD_SOURCE_TIMER];
static uint32_t events[MFD_SOURCES];

static void set_up(void)
{
    for (unsigned i = 0; i < MFD_SOURCE_TIMER; i++)
        NEED((fds[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) >= 0);
    NEED(mfd_sources_open(&sources, fds) == 0);
}

static void tear_down(void)
{
    for (unsigned i = 0; i < MFD_SOURCE_TIMER; i++)
        (void)close(fds[i]);
    (void)close(sources.epoll_fd);
    (void)close(sources.timer_fd);
}

/* @timeout_ms: -1: until it is */
static bool is_readable(int timeout_ms)
{
    struct pollfd polled = {.fd = sources.epoll_fd, .events = POLLIN};

    return poll(&polled, 1, timeout_ms) == 1;
}

static void signal_on(enum mfd_source source)
{
    NEED(eventfd_write(fds[source], 1) == 0);
}

static void each_source_is_told_from_the_others(void)
{
    set_up();
    CHECK(!is_readable(0));
    for (unsigned source = 0; source < MFD_SOURCE_TIMER; source++) {
        eventfd_t ignored;

        signal_on(source);
        CHECK(is_readable(0));
        mfd_sources_take(&sources, events);
        for (unsigned i = 0; i < MFD_SOURCES; i++)
            CHECK_EQ(events[i], i == source ? EPOLLIN : 0U);
        CHECK(is_readable(0)); /* as long as it is */
        NEED(eventfd_read(fds[source], &ignored) == 0);
        CHECK(!is_readable(0));
    }
    signal_on(MFD_SOURCE_SIGNAL);
    signal_on(MFD_SOURCE_WAITS);
    mfd_sources_take(&sources, events);
    CHECK(events[MFD_SOURCE_SIGNAL] != 0 && events[MFD_SOURCE_WAITS] != 0);
    tear_down();
}

static void the_channel_is_waited_for_as_is_wanted(void)
{
    set_up();
    signal_on(MFD_SOURCE_CONTROL);
    mfd_sources_want(&sources, fds[MFD_SOURCE_CONTROL], 0);
    CHECK(!is_readable(0));
    mfd_sources_want(&sources, fds[MFD_SOURCE_CONTROL], EPOLLIN | EPOLLOUT);
    mfd_sources_take(&sources, events);
    CHECK_EQ(events[MFD_SOURCE_CONTROL], EPOLLIN | EPOLLOUT);
    mfd_sources_want(&sources, fds[MFD_SOURCE_CONTROL], EPOLLOUT);
    mfd_sources_take(&sources, events);
    CHECK_EQ(events[MFD_SOURCE_CONTROL], EPOLLOUT);
    mfd_sources_end_control(&sources, fds[MFD_SOURCE_CONTROL]);
    mfd_sources_want(&sources, -1, EPOLLIN);
    CHECK(!is_readable(0));
    tear_down();
}

static uint64_t set_to_ns(void)
{
    struct itimerspec left;
    uint64_t now = mfd_now_ns();

    NEED(timerfd_gettime(sources.timer_fd, &left) == 0);
    if (left.it_value.tv_sec == 0 && left.it_value.tv_nsec == 0)
        return UINT64_MAX;
    return now + (uint64_t)left.it_value.tv_sec * MFD_NS_PER_S + (uint64_t)left.it_value.tv_nsec;
}

static void the_timer_is_set_to_what_is_nearer_and_else_left(void)
{
    const uint64_t hour = 3600 * MFD_NS_PER_S;
    const uint64_t now = mfd_now_ns();

    set_up();
    CHECK_EQ(set_to_ns(), UINT64_MAX);
    mfd_sources_await(&sources, UINT64_MAX);
    CHECK_EQ(set_to_ns(), UINT64_MAX);
    mfd_sources_await(&sources, now + 3 * hour);
    CHECK(set_to_ns() < now + 4 * hour);
    mfd_sources_await(&sources, now + hour);
    CHECK(set_to_ns() < now + 2 * hour);
    mfd_sources_await(&sources, now + 5 * hour);
    mfd_sources_await(&sources, UINT64_MAX);
    CHECK(set_to_ns() < now + 2 * hour);
    CHECK(!is_readable(0));

    mfd_sources_await(&sources, now + 1); /* which has passed */
    CHECK(is_readable(-1));
    mfd_sources_take(&sources, events);
    CHECK_EQ(events[MFD_SOURCE_TIMER], EPOLLIN);
    CHECK(!is_readable(0));
    mfd_sources_await(&sources, now + hour); /* it has rung, so this is nearer than nothing */
    CHECK(set_to_ns() < now + 2 * hour);
    mfd_sources_await(&sources, 0);
    CHECK(is_readable(-1));
    tear_down();
}

int main(void)
{
    each_source_is_told_from_the_others();
    the_channel_is_waited_for_as_is_wanted();
    the_timer_is_set_to_what_is_nearer_and_else_left();
    return check_result();
}
