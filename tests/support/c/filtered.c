/* filtered.c - filtered MODE ACTION HOST PORT: connect under a seccomp filter of the program's own
 *
 * MODE without: an allow list of what an ordinary program calls, connect not being in it
 *      with:    the same, and connect
 *      nothing: no filter
 * ACTION: what happens to a call that is not in the list: errno, kill, trap, trace, log or notify (of a
 * filter that nobody listens to)
 *
 * Without a filter it tells what else of seccomp it can have: its mode, strict mode (in a child), and a
 * listener of its own. */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "say.h"

#define REASON 4711 /* an errno-like number that only the filter could have chosen */

static const int allowed[] = {
    SYS_read,    SYS_write,      SYS_close, SYS_fstat,  SYS_newfstatat,   SYS_mmap,
    SYS_munmap,  SYS_mprotect,   SYS_brk,   SYS_socket, SYS_rt_sigreturn, SYS_exit_group,
    SYS_ppoll,   SYS_getsockopt, SYS_fcntl, SYS_lseek,  SYS_getrandom,    SYS_futex,
#ifdef SYS_poll
    SYS_poll,
#endif
    SYS_connect, /* must be last; see "without" */
};

#define N_ALLOWED (sizeof(allowed) / sizeof(allowed[0]))

static uint32_t action_of(const char *name)
{
    static const struct {
        const char *name;
        uint32_t action;
    } actions[] = {
        {"errno", SECCOMP_RET_ERRNO | EOWNERDEAD},
        {"kill", SECCOMP_RET_KILL_PROCESS},
        {"trap", SECCOMP_RET_TRAP | REASON},
        {"trace", SECCOMP_RET_TRACE | REASON},
        {"log", SECCOMP_RET_LOG},
        {"notify", SECCOMP_RET_USER_NOTIF},
    };

    for (size_t i = 0; i < sizeof(actions) / sizeof(actions[0]); i++)
        if (strcmp(name, actions[i].name) == 0)
            return actions[i].action;
    _exit(SET_UP_FAILED);
}

static void install(size_t n_allowed, uint32_t action)
{
    struct sock_filter program[2 * N_ALLOWED + 2] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))};
    struct sock_fprog filter = {.filter = program, .len = 1};

    for (size_t i = 0; i < n_allowed; i++) {
        program[filter.len++] =
            (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)allowed[i], 0, 1);
        program[filter.len++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    }
    program[filter.len++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, action);
    sure("seccomp", (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter));
}

static void trapped(int signo, siginfo_t *info, void *unused)
{
    (void)signo, (void)unused;
    printf("trapped: call %s, reason %d\n", info->si_syscall == SYS_connect ? "connect" : "other",
           info->si_errno);
    fflush(stdout);
    _exit(0);
}

static void strict_mode(void)
{
    int status = 0;
    pid_t child = sure("fork", fork());

    if (child == 0)
        syscall(SYS_exit, prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) < 0 ? errno : 0);
    sure("waitpid", waitpid(child, &status, 0));
    printf("strict mode: %s\n", name_of(WEXITSTATUS(status)));
}

static void own_listener(void)
{
    struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog filter = {.filter = &allow, .len = 1};

    printf("mode: %d\n", prctl(PR_GET_SECCOMP));
    strict_mode();
    say((int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER,
                     &filter),
        "own listener");
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO};
    struct address address = address_of(argv[3], argv[4]);
    int fd;

    (void)argc;
    sure("sigaction", sigaction(SIGSYS, &action, NULL));
    sure("PR_SET_NO_NEW_PRIVS", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    if (strcmp(argv[1], "nothing") == 0)
        own_listener();
    else
        install(N_ALLOWED - (strcmp(argv[1], "without") == 0), action_of(argv[2]));
    fd = tcp_socket(&address, 0);
    say(dial(fd, &address), "connect");
    say_rest(fd, "greeting");
    return 0;
}
