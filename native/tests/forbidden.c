/* Forbidden ports: what is no ruleset is not held, nor waited for; want of fds is this call's alone; and a ruleset's
 * ports are found. The program is this process; answers are caught. */
#include <poll.h>
#include <sched.h>
#include <sys/resource.h>

#include "lingering.h"

static int closed_meanwhile = -1; /* by another thread of the program, when we have our duplicate */
static int last_answer;           /* 1: CONTINUE */

static int open_fd_here(pid_t pid, int fd, int *ret_fd)
{
    int error = mfd_target_open_fd(pid, fd, ret_fd);

    mfd_close_at(&closed_meanwhile);
    return error;
}

static bool is_alive_here(const struct mfd_notification *call)
{
    return call != NULL;
}

static void catch_answer(int answer)
{
    last_answer = answer;
}

#define mfd_target_open_fd(pid, fd, ret_fd) open_fd_here(pid, fd, ret_fd)
#define mfd_notify_is_alive(call) is_alive_here(call)
#define mfd_answer(agent, call, result) ((void)(agent), (void)(call), catch_answer(result))
#define mfd_answer_continue(agent, call) ((void)(agent), (void)(call), catch_answer(1))
#include "../forbidden.c"
#undef mfd_target_open_fd
#undef mfd_notify_is_alive
#undef mfd_answer
#undef mfd_answer_continue

#define PATIENCE_MS 60000
#define N_CHILDREN 3
#define FDS_TO_LOOK 2 /* the program's pidfd, and the duplicate of its ruleset */

static struct mfd_agent agent;
static struct mfd_stats stats;

static void open_agent(void)
{
    memset(&agent, 0, sizeof(agent));
    agent.control.fd = -1;
    agent.stats = &stats;
    NEED(mfd_forbidden_open(&agent.forbidden) == 0);
    last_answer = 0;
}

static void close_agent(void)
{
    NEED(munmap(agent.forbidden.ports, sizeof(*agent.forbidden.ports)) == 0);
    mfd_close_at(&agent.forbidden.epoll_fd);
    mfd_target_forget_all();
}

static void restrict_self(int fd)
{
    const struct mfd_notification call = {
        .listener = 0, .pid = getpid(), .call.args = {(uint32_t)fd}};

    mfd_restrict_handle(&agent, &call);
}

static bool is_forbidden(uint16_t port)
{
    return mfd_forbidden_connects(&agent, port);
}

/* Its close would wait for ever, if the agent's were the last. */
static void what_is_no_ruleset_is_let_go_at_once(void)
{
    struct pair pair = lingering();
    unsigned before;

    open_agent();
    before = count_open_fds();
    closed_meanwhile = pair.client;
    restrict_self(pair.client);
    CHECK_EQ(last_answer, 1);
    CHECK_EQ(agent.forbidden.n_probing, 0);
    CHECK(!is_forbidden(80));
    mfd_target_forget_all();
    CHECK_EQ(count_open_fds(), before - 1);
    (void)close(pair.server);
    close_agent();
}

/* The ports stay what they are: what passes must not turn every route of the service off. */
static void want_of_fds_forbids_nothing(void)
{
    struct rlimit limit;
    struct rlimit none;
    int fd;

    open_agent();
    fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    NEED(fd >= 0 && getrlimit(RLIMIT_NOFILE, &limit) == 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = limit.rlim_max};
    NEED(setrlimit(RLIMIT_NOFILE, &none) == 0);
    restrict_self(fd);
    NEED(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    CHECK_EQ(last_answer, -ENOMEM);
    CHECK(!is_forbidden(80));
    (void)close(fd);
    close_agent();
}

static void wait_for_children(void)
{
    struct pollfd polled = {.fd = agent.forbidden.epoll_fd, .events = POLLIN};

    NEED(poll(&polled, 1, PATIENCE_MS) == 1);
    mfd_forbidden_run(&agent);
}

static void a_ruleset_is_tried(void)
{
    const struct mfd_landlock_ruleset ruleset = {.handled_access_net = MFD_LANDLOCK_CONNECT_TCP};
    int fd = (int)syscall(SYS_landlock_create_ruleset, &ruleset, sizeof(ruleset), 0);

    if (fd < 0) {
        check_skip("rulesets: no Landlock for TCP");
        return;
    }
    open_agent();
    restrict_self(fd);
    (void)close(fd);
    CHECK_EQ(last_answer, 0); /* not yet */
    CHECK_EQ(agent.forbidden.n_probing, 1);
    wait_for_children();
    CHECK_EQ(last_answer, 1);
    CHECK_EQ(agent.forbidden.n_probing, 0);
    CHECK(is_forbidden(0) && is_forbidden(80) && is_forbidden(UINT16_MAX));
    CHECK(!mfd_forbidden_binds(&agent, 80));
    close_agent();
}

/* What the agent closes is closed, though the child may not have run yet: it shares our only CPU. */
static void a_child_keeps_nothing_open(void)
{
    const struct mfd_landlock_ruleset ruleset = {.handled_access_net = MFD_LANDLOCK_CONNECT_TCP};
    int fd = (int)syscall(SYS_landlock_create_ruleset, &ruleset, sizeof(ruleset), 0);
    unsigned cpu = 0;
    struct mfd_watch watch;
    cpu_set_t all;
    cpu_set_t one;
    int ends[2];

    if (fd < 0)
        return; /* said above */
    NEED(sched_getaffinity(0, sizeof(all), &all) == 0 && getcpu(&cpu, NULL) == 0);
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    NEED(sched_setaffinity(0, sizeof(one), &one) == 0);
    for (unsigned i = 0; i < N_CHILDREN; i++) {
        open_agent();
        NEED(pipe2(ends, O_CLOEXEC) == 0);
        NEED(mfd_watch_open(ends[0], &watch) == 0);
        restrict_self(fd);
        (void)close(ends[0]);
        CHECK(!mfd_watch_is_open(&watch));
        wait_for_children();
        mfd_watch_close(&watch);
        (void)close(ends[1]);
        close_agent();
    }
    NEED(sched_setaffinity(0, sizeof(all), &all) == 0);
    (void)close(fd);
}

/* There are fds to look at the ruleset with, and none for the child. */
static void want_of_a_child_forbids_nothing(void)
{
    const struct mfd_landlock_ruleset ruleset = {.handled_access_net = MFD_LANDLOCK_CONNECT_TCP};
    int fd = (int)syscall(SYS_landlock_create_ruleset, &ruleset, sizeof(ruleset), 0);
    struct rlimit limit;
    struct rlimit tight;

    if (fd < 0)
        return; /* said above */
    open_agent();
    NEED(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    tight = (struct rlimit){.rlim_cur = (rlim_t)agent.forbidden.epoll_fd + 1 + FDS_TO_LOOK,
                            .rlim_max = limit.rlim_max};
    NEED(setrlimit(RLIMIT_NOFILE, &tight) == 0);
    restrict_self(fd);
    NEED(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    CHECK_EQ(last_answer, -ENOMEM);
    CHECK_EQ(agent.forbidden.calls[0].call.pid, getpid()); /* so far it came */
    CHECK(!agent.forbidden.calls[0].used);
    CHECK_EQ(agent.forbidden.n_probing, 0);
    CHECK(!is_forbidden(80));
    (void)close(fd);
    close_agent();
}

int main(void)
{
    what_is_no_ruleset_is_let_go_at_once();
    want_of_fds_forbids_nothing();
    a_ruleset_is_tried();
    a_child_keeps_nothing_open();
    want_of_a_child_forbids_nothing();
    return check_result();
}
