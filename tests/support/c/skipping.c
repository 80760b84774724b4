/* skipping.c - skipping HOST PORT: a tracer that has its child's calls skipped, or turned into others (ptrace(2))
 *
 * leave: the number becomes -1, and the result is left alone     answer: the tracer gives it one
 * turn: a call that nobody intercepts becomes connect(), or connect() one that nobody intercepts */
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>

#include "say.h"

#if defined(__x86_64__)
#define NUMBER(regs) ((regs)->orig_rax)
#define RESULT(regs) ((regs)->rax)
#elif defined(__i386__)
#define NUMBER(regs) ((regs)->orig_eax)
#define RESULT(regs) ((regs)->eax)
#endif

#define SYSCALL_STOP (SIGTRAP | 0x80) /* PTRACE_O_TRACESYSGOOD */

struct change {
    const char *name;
    int from;
    int to;
    int error; /* 0: the kernel's result stays */
    int early; /* the result is written before the call, where a skipped one leaves it */
};

#ifdef NUMBER

static void be_traced(const char *name, int from, const struct address *address)
{
    int fd = tcp_socket(address, 0);
    long result;

    sure("PTRACE_TRACEME", (int)ptrace(PTRACE_TRACEME, 0, NULL, NULL));
    raise(SIGSTOP);
    result = syscall(from, fd, sockaddr_of(address), address->length, 0, 0, 0);
    say((int)result, "%s", name);
    say(getpeername(fd, (struct sockaddr *)&(struct sockaddr_storage){0}, &(socklen_t){128}),
        "%s, peer", name);
    say(dial(fd, address), "%s, then connect", name);
    _exit(0);
}

/* One call only: the first that it finds. */
static void trace(pid_t child, const struct change *change)
{
    struct user_regs_struct regs;
    int status;
    int changed = 0;
    int is_entry = 1;

    sure("waitpid", waitpid(child, &status, 0));
    sure("PTRACE_SETOPTIONS", (int)ptrace(PTRACE_SETOPTIONS, child, NULL, PTRACE_O_TRACESYSGOOD));
    for (;;) {
        sure("PTRACE_SYSCALL", (int)ptrace(PTRACE_SYSCALL, child, NULL, NULL));
        sure("waitpid", waitpid(child, &status, 0));
        if (WIFEXITED(status))
            return;
        if (!WIFSTOPPED(status) || WSTOPSIG(status) != SYSCALL_STOP)
            continue;
        sure("PTRACE_GETREGS", (int)ptrace(PTRACE_GETREGS, child, NULL, &regs));
        if (is_entry && changed == 0 && (int)NUMBER(&regs) == change->from) {
            NUMBER(&regs) = change->to;
            if (change->early)
                RESULT(&regs) = -change->error;
            changed = 1;
        } else if (!is_entry && changed == 1) {
            if (change->error != 0 && !change->early)
                RESULT(&regs) = -change->error;
            changed = 2;
        }
        sure("PTRACE_SETREGS", (int)ptrace(PTRACE_SETREGS, child, NULL, &regs));
        is_entry = !is_entry;
    }
}

int main(int argc, char **argv)
{
    static const struct change changes[] = {
        {"leave", SYS_connect, -1, 0, 0},
        {"answer", SYS_connect, -1, EPERM, 0},
        {"answer early", SYS_connect, -1, EXDEV, 1},
        {"turn away", SYS_connect, SYS_getppid, EDOM, 0},
        {"turn into", SYS_getppid, SYS_connect, 0, 0},
        {"answer getppid early", SYS_getppid, -1, EDOM, 1},
    };
    struct address address = address_of(argv[1], argv[2]);

    (void)argc;
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        pid_t child;

        fflush(stdout);
        child = sure("fork", fork());
        if (child == 0)
            be_traced(changes[i].name, changes[i].from, &address);
        trace(child, &changes[i]);
    }
    return 0;
}

#else

int main(void)
{
    return SET_UP_FAILED;
}

#endif
