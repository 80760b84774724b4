/* killed_child.c - killed_child N PROGRAM ARG...: become PROGRAM, whose first child is killed early
 *
 * A tracer beside it (ptrace) waits for the child and sends it SIGKILL at its Nth stop: 0, before its
 * first instruction; from then on each system call has two, at its entry and at its exit. */
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "say.h"

#define OPTIONS                                                                                    \
    (PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACESYSGOOD)

static int next_stop(pid_t pid)
{
    int status = 0;

    if (waitpid(pid, &status, __WALL) != pid || !WIFSTOPPED(status))
        _exit(0); /* it has ended by itself */
    return status;
}

static pid_t first_child(pid_t target)
{
    unsigned long child = 0;

    for (;;) {
        int status = next_stop(target);
        int event = status >> 16;

        if (event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_VFORK ||
            event == PTRACE_EVENT_CLONE)
            break;
        ptrace(PTRACE_CONT, target, NULL, event == 0 ? (long)WSTOPSIG(status) : 0);
    }
    sure("PTRACE_GETEVENTMSG", (int)ptrace(PTRACE_GETEVENTMSG, target, NULL, &child));
    return (pid_t)child;
}

static void trace(pid_t target, int n, int ready_fd)
{
    pid_t child;

    sure("PTRACE_SEIZE", (int)ptrace(PTRACE_SEIZE, target, NULL, (long)OPTIONS));
    sure("write", (int)write(ready_fd, "", 1));
    sure("close_range", close_range(0, ~0U, 0)); /* its pipes are to end without us */
    child = first_child(target);
    (void)next_stop(child);
    if (n > 0)
        ptrace(PTRACE_DETACH, target, NULL, NULL);
    for (int i = 0; i < n; i++) {
        ptrace(PTRACE_SYSCALL, child, NULL, NULL);
        (void)next_stop(child);
    }
    kill(child, SIGKILL);
    _exit(0);
}

int main(int argc, char **argv)
{
    pid_t target = getpid();
    pid_t helper;
    int ready[2];
    char byte;

    (void)argc;
    (void)prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
    sure("pipe2", pipe2(ready, O_CLOEXEC));
    helper = sure("fork", fork());
    if (helper == 0) {
        if (sure("fork", fork()) > 0)
            _exit(0); /* so that PROGRAM has no child that it does not know */
        trace(target, atoi(argv[1]), ready[1]);
    }
    sure("waitpid", waitpid(helper, NULL, 0));
    close(ready[1]);
    if (read(ready[0], &byte, 1) != 1)
        _exit(SET_UP_FAILED);
    execv(argv[2], argv + 2);
    return SET_UP_FAILED;
}
