/* Calls that wait: each goes on once when its socket is ready or its time is over, and is forgotten with its
 * thread or its listener; nothing stays open.
 *
 * The calls belong to no listener that exists; what signals do to real ones the live tests see. */
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "agents.h"

static struct {
    unsigned n;
    enum mfd_wake wake;
    uint64_t id;
    bool again; /* it has to wait on, once */
} tried;

static bool try_it(struct mfd_agent *self, const struct mfd_notification *call,
                   struct mfd_trial *trial)
{
    bool over = !tried.again;

    CHECK(self == &agent);
    CHECK(is_open(trial->fd));
    CHECK_EQ(trial->progress, tried.n);
    tried.n = ++trial->progress;
    tried.wake = trial->wake;
    tried.id = call->id;
    tried.again = false;
    return over;
}

static struct mfd_notification call_of(uint64_t id, pid_t pid, int listener)
{
    return (struct mfd_notification){
        .listener = listener, .id = id, .pid = pid, .received_ns = mfd_now_ns()};
}

static int put(uint64_t id, pid_t pid, int listener, int fd, uint64_t timeout_ns)
{
    struct mfd_notification call = call_of(id, pid, listener);
    int own_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    struct mfd_wait_plan plan = {.proceed = try_it, .events = EPOLLIN, .timeout_ns = timeout_ns};
    int error = mfd_wait_for(&agent, &call, own_fd, &plan, 0);

    if (error < 0)
        (void)close(own_fd);
    return error;
}

static int open_waits(int ret_pair[2])
{
    int supervisor_fd = open_agent();

    memset(&tried, 0, sizeof(tried));
    NEED(mfd_waits_open(&agent.waits) == 0);
    NEED(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ret_pair) == 0);
    return supervisor_fd;
}

static void close_waits(int supervisor_fd, const int pair[2])
{
    (void)close(agent.waits.epoll_fd);
    (void)close(pair[0]);
    (void)close(pair[1]);
    close_agent(supervisor_fd);
}

static void a_ready_socket_goes_on(void)
{
    int pair[2];
    int supervisor_fd = open_waits(pair);
    unsigned n_open = count_open_fds();

    CHECK_EQ(put(1, getpid(), -1, pair[0], 0), 0);
    CHECK_EQ(put(2, getpid(), -1, pair[1], 0), 0);
    CHECK_EQ(agent_stats.waits, 2);
    mfd_waits_run(&agent);
    CHECK_EQ(tried.n, 0);
    NEED(write(pair[1], "x", 1) == 1);
    tried.again = true;
    mfd_waits_run(&agent);
    CHECK_EQ(tried.n, 1);
    CHECK_EQ(tried.id, 1);
    mfd_waits_run(&agent); /* it is as it was: nothing new has happened */
    CHECK_EQ(tried.n, 1);
    CHECK_EQ(agent_stats.waits, 2);
    NEED(write(pair[1], "x", 1) == 1);
    mfd_waits_run(&agent);
    CHECK_EQ(tried.n, 2);
    CHECK_EQ(tried.wake, MFD_WAKE_READY);
    CHECK_EQ(agent_stats.waits, 1);
    NEED(write(pair[1], "x", 1) == 1);
    mfd_waits_run(&agent); /* the file lives on, and is watched no more */
    CHECK_EQ(tried.n, 2);
    mfd_waits_forget(&agent, -1);
    CHECK_EQ(agent_stats.waits, 0);
    CHECK_EQ(count_open_fds(), n_open);
    close_waits(supervisor_fd, pair);
}

static void a_deadline_ends_it(void)
{
    int pair[2];
    int supervisor_fd = open_waits(pair);
    unsigned n_open = count_open_fds();

    CHECK_EQ(mfd_waits_next_ns(&agent.waits), (long long)UINT64_MAX);
    CHECK_EQ(put(1, getpid(), -1, pair[0], 1), 0);
    CHECK(mfd_waits_next_ns(&agent.waits) <= mfd_now_ns());
    mfd_waits_expire(&agent, mfd_now_ns());
    CHECK_EQ(tried.n, 1);
    CHECK_EQ(tried.wake, MFD_WAKE_TIMEOUT);
    CHECK_EQ(agent_stats.waits, 0);
    CHECK_EQ(mfd_waits_next_ns(&agent.waits), (long long)UINT64_MAX);
    CHECK_EQ(count_open_fds(), n_open);
    close_waits(supervisor_fd, pair);
}

/* Each message has the whole time (SO_RCVTIMEO), and what is tried is told when the last one was done. */
static void progress_gives_a_new_deadline(void)
{
    int pair[2];
    int supervisor_fd = open_waits(pair);
    uint64_t first;
    uint64_t begin_ns;

    CHECK_EQ(put(1, getpid(), -1, pair[0], MFD_NS_PER_S), 0);
    first = agent.waits.slots[0].deadline_ns;
    begin_ns = mfd_now_ns();
    CHECK_EQ(first, agent.waits.slots[0].call.received_ns + MFD_NS_PER_S);
    NEED(write(pair[1], "x", 1) == 1);
    tried.again = true;
    mfd_waits_run(&agent);
    CHECK_EQ(tried.n, 1);
    CHECK(agent.waits.slots[0].progress_ns >= begin_ns);
    CHECK_EQ(agent.waits.slots[0].deadline_ns, agent.waits.slots[0].progress_ns + MFD_NS_PER_S);
    CHECK(agent.waits.slots[0].deadline_ns > first);
    mfd_waits_expire(&agent, agent.waits.slots[0].deadline_ns);
    CHECK_EQ(tried.n, 2);
    CHECK_EQ(tried.wake, MFD_WAKE_TIMEOUT);
    CHECK_EQ(agent_stats.waits, 0);
    close_waits(supervisor_fd, pair);
}

/* At a look at signals it is seen that the kernel no longer knows the call. */
static void a_call_that_is_gone_is_forgotten(void)
{
    int pair[2];
    int supervisor_fd = open_waits(pair);

    CHECK_EQ(put(1, getpid(), -1, pair[0], 0), 0);
    mfd_waits_expire(&agent, mfd_waits_next_ns(&agent.waits) - 1);
    CHECK_EQ(agent_stats.waits, 1);
    mfd_waits_expire(&agent, mfd_waits_next_ns(&agent.waits));
    CHECK_EQ(agent_stats.waits, 0);
    CHECK_EQ(tried.n, 0);
    close_waits(supervisor_fd, pair);
}

static void a_dead_thread_is_forgotten(void)
{
    int pair[2];
    int supervisor_fd = open_waits(pair);
    struct pollfd polled = {.fd = agent.waits.epoll_fd, .events = POLLIN};
    unsigned n_open = count_open_fds();
    pid_t pid = fork();

    NEED(pid >= 0);
    if (pid == 0) {
        (void)pause();
        _exit(0);
    }
    CHECK_EQ(put(1, pid, -1, pair[0], 0), 0);
    (void)kill(pid, SIGKILL);
    CHECK_EQ(poll(&polled, 1, -1), 1);
    mfd_waits_run(&agent);
    CHECK_EQ(agent_stats.waits, 0);
    CHECK_EQ(tried.n, 0);
    CHECK_EQ(count_open_fds(), n_open);
    CHECK_EQ(waitpid(pid, NULL, 0), pid);
    CHECK_EQ(put(1, pid, -1, pair[0], 0), -ESRCH);
    CHECK_EQ(count_open_fds(), n_open);
    close_waits(supervisor_fd, pair);
}

static void one_too_many_does_not_wait(void)
{
    struct rlimit limit;
    int pair[2];
    int supervisor_fd;
    pid_t pid;

    NEED(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = limit.rlim_max;
    NEED(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    supervisor_fd = open_waits(pair);
    NEED(agent.waits.room == MFD_WAITS_MAX);
    for (unsigned i = 0; i < MFD_WAITS_MAX / 2; i++)
        NEED(put(i, getpid(), 1000, pair[0], 0) == 0);
    CHECK_EQ(put(0, getpid(), 1000, pair[0], 0), -EAGAIN); /* the others' half is not ours */
    pid = fork();
    NEED(pid >= 0);
    if (pid == 0) {
        (void)pause();
        _exit(0);
    }
    for (unsigned i = 0; i < MFD_WAITS_MAX / 2; i++)
        NEED(put(i, pid, 1001, pair[0], 0) == 0);
    CHECK_EQ(put(0, pid, 1001, pair[0], 0), -EAGAIN);
    mfd_waits_forget(&agent, 1001);
    CHECK_EQ(agent_stats.waits, MFD_WAITS_MAX / 2);
    CHECK_EQ(put(0, getpid(), 1000, pair[0], 0), -EAGAIN);
    CHECK_EQ(put(0, pid, 1001, pair[0], 0), 0);
    mfd_waits_forget(&agent, 1000);
    CHECK_EQ(put(0, getpid(), 1000, pair[0], 0), 0);
    mfd_waits_forget(&agent, 1000);
    mfd_waits_forget(&agent, 1001);
    CHECK_EQ(agent_stats.waits, 0);
    (void)kill(pid, SIGKILL);
    CHECK_EQ(waitpid(pid, NULL, 0), pid);
    close_waits(supervisor_fd, pair);
}

int main(void)
{
    a_ready_socket_goes_on();
    a_deadline_ends_it();
    progress_gives_a_new_deadline();
    a_call_that_is_gone_is_forgotten();
    a_dead_thread_is_forgotten();
    one_too_many_does_not_wait();
    return check_result();
}
