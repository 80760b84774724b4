/* Children: their ends are reported once each and never lost, signals go where they are meant to. */
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "agents.h"

/* A child that ends with this code, or, when it is negative, waits to be killed. */
static pid_t start(int code)
{
    pid_t pid = fork();

    NEED(pid >= 0);
    if (pid > 0)
        return pid;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (code >= 0)
        _exit(code);
    for (;;)
        (void)pause();
}

static pid_t spawn_child(int code)
{
    pid_t pid = start(code);

    CHECK_EQ(mfd_children_add(&agent.children, pid), 0);
    return pid;
}

/* Until some child has changed in one of these ways; it stays to be reaped. */
static void wait_for_change(int how)
{
    siginfo_t info;

    NEED(waitid(P_ALL, 0, &info, how | WNOWAIT) == 0);
}

static void expect_exited(int supervisor_fd, pid_t pid, int status)
{
    union report report = {0};

    CHECK_EQ(next_report(supervisor_fd, &report), MFD_MSG_EXITED);
    CHECK_EQ(report.exited.pid, pid);
    CHECK_EQ(report.exited.status, status);
}

static void ends_are_reported_as_waitpid_would(void)
{
    int supervisor_fd = open_agent();
    union report report;
    pid_t pid = spawn_child(3);

    CHECK_EQ(agent.children.main, pid);
    wait_for_change(WEXITED);
    mfd_children_reap(&agent);
    expect_exited(supervisor_fd, pid, 3 << 8);
    CHECK_EQ(next_report(supervisor_fd, &report), 0);
    CHECK_EQ(agent.children.main, 0);
    CHECK(agent.children.none);
    pid = spawn_child(-1);
    CHECK(!agent.children.none);
    CHECK_EQ(mfd_children_signal(&agent, SIGTERM, MFD_SCOPE_MAIN), 0);
    wait_for_change(WEXITED);
    mfd_children_reap(&agent);
    expect_exited(supervisor_fd, pid, SIGTERM);
    close_agent(supervisor_fd);
}

static void only_spawned_programs_are_reported(void)
{
    int supervisor_fd = open_agent();
    union report report;

    (void)start(0);
    wait_for_change(WEXITED);
    mfd_children_reap(&agent);
    CHECK_EQ(next_report(supervisor_fd, &report), 0);
    CHECK(agent.children.none);
    CHECK_EQ(waitpid(-1, NULL, WNOHANG), -1); /* reaped all the same */
    close_agent(supervisor_fd);
}

static void a_stop_is_reported_and_the_program_lives_on(void)
{
    int supervisor_fd = open_agent();
    union report report = {0};
    pid_t pid = spawn_child(-1);

    CHECK_EQ(mfd_children_signal(&agent, SIGSTOP, MFD_SCOPE_MAIN), 0);
    wait_for_change(WSTOPPED);
    mfd_children_reap(&agent);
    CHECK_EQ(next_report(supervisor_fd, &report), MFD_MSG_STOPPED);
    CHECK(WIFSTOPPED((int)report.exited.status));
    CHECK_EQ(WSTOPSIG((int)report.exited.status), SIGSTOP);
    CHECK_EQ(agent.children.main, pid);
    mfd_children_reap(&agent);
    CHECK_EQ(next_report(supervisor_fd, &report), 0); /* once */
    CHECK_EQ(mfd_children_signal(&agent, SIGKILL, MFD_SCOPE_MAIN), 0);
    wait_for_change(WEXITED);
    mfd_children_reap(&agent);
    expect_exited(supervisor_fd, pid, SIGKILL);
    close_agent(supervisor_fd);
}

static void a_full_channel_loses_no_end(void)
{
    int supervisor_fd = open_agent();
    unsigned n_fillers = fill_channel();
    pid_t pid = spawn_child(5);
    union report report;

    wait_for_change(WEXITED);
    mfd_children_reap(&agent);
    CHECK(agent.control.full);
    wait_for_change(WEXITED); /* still there: nobody has been told */
    drain(supervisor_fd, n_fillers);
    mfd_control_flush(&agent);
    CHECK(!agent.control.full);
    expect_exited(supervisor_fd, pid, 5 << 8);
    CHECK_EQ(next_report(supervisor_fd, &report), 0);
    close_agent(supervisor_fd);
}

static void killing_all_reaches_orphans(void)
{
    int supervisor_fd = open_agent();
    int ready[2];
    pid_t pid;
    char byte;

    NEED(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0);
    NEED(pipe2(ready, O_CLOEXEC) == 0);
    pid = fork();
    NEED(pid >= 0);
    if (pid == 0) { /* three generations, all of which wait */
        for (int i = 0; i < 2; i++)
            if (fork() > 0)
                for (;;)
                    (void)pause();
        if (write(ready[1], "x", 1) == 1)
            for (;;)
                (void)pause();
        _exit(1);
    }
    NEED(read(ready[0], &byte, 1) == 1);
    CHECK_EQ(mfd_children_add(&agent.children, pid), 0);
    CHECK_EQ(mfd_children_signal(&agent, SIGKILL, MFD_SCOPE_ALL), 0);
    while (!agent.children.none) {
        wait_for_change(WEXITED);
        mfd_children_reap(&agent);
    }
    expect_exited(supervisor_fd, pid, SIGKILL);
    CHECK_EQ(waitpid(-1, NULL, WNOHANG), -1);
    CHECK(!agent.children.ending);
    (void)close(ready[0]);
    (void)close(ready[1]);
    close_agent(supervisor_fd);
}

static void signals_to_nobody_and_nonsense(void)
{
    int supervisor_fd = open_agent();

    CHECK_EQ(mfd_children_signal(&agent, SIGTERM, MFD_SCOPE_MAIN), 0);
    CHECK_EQ(mfd_children_signal(&agent, SIGTERM, MFD_SCOPE_ALL), 0);
    CHECK_EQ(mfd_children_signal(&agent, SIGKILL, MFD_SCOPE_ALL), 0);
    CHECK_EQ(mfd_children_signal(&agent, 0, MFD_SCOPE_MAIN), -EINVAL);
    CHECK_EQ(mfd_children_signal(&agent, -1, MFD_SCOPE_ALL), -EINVAL);
    CHECK_EQ(mfd_children_signal(&agent, SIGRTMAX + 1, MFD_SCOPE_MAIN), -EINVAL);
    CHECK_EQ(mfd_children_signal(&agent, SIGTERM, 0), -EINVAL);
    CHECK_EQ(mfd_children_signal(&agent, SIGTERM, MFD_SCOPE_ALL + 1), -EINVAL);
    close_agent(supervisor_fd);
}

static void so_many_programs_are_remembered_and_no_more(void)
{
    struct mfd_children children = {.none = true};

    for (int i = 1; i <= MFD_SPAWNED_MAX; i++)
        CHECK_EQ(mfd_children_add(&children, i), 0);
    CHECK_EQ(mfd_children_add(&children, MFD_SPAWNED_MAX + 1), -ENOSPC);
    CHECK_EQ(children.main, MFD_SPAWNED_MAX);
}

int main(void)
{
    ends_are_reported_as_waitpid_would();
    only_spawned_programs_are_reported();
    a_stop_is_reported_and_the_program_lives_on();
    a_full_channel_loses_no_end();
    killing_all_reaches_orphans();
    signals_to_nobody_and_nonsense();
    so_many_programs_are_remembered_and_no_more();
    return check_result();
}
