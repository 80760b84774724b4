/* spawn.c - start a program under its filter, and get the filter's listener
 *
 * Theory of operation: the program starts as a child that shares the agent's memory and fd table
 * (CLONE_VM, CLONE_FILES) while the agent stands still (CLONE_VFORK). In this order the child
 *   1. in a strict service gives up, by a Landlock rule, making TCP connections itself: there the agent
 *      makes them all, and what the kernel is asked to carry out is never one, whatever another thread does
 *      to arguments and fds meanwhile;
 *   2. installs the filter; its listener appears in the shared table and stays there, in the agent;
 *   3. leaves the table (unshare), so that what follows concerns itself alone;
 *   4. puts its standard files in place, takes on its limits, identity and directory, unblocks its
 *      signals, and execs.
 * 1 and 2 set no_new_privs, unless they may do without (CAP_SYS_ADMIN): so a setuid program keeps its meaning
 * under a privileged meshfd. From 2 on the child is under its own filter: it must make no call that traps, because the agent,
 * who would answer, waits for its exec. None of the calls of 3 and 4 does. Identity is changed by raw
 * system calls: the C library's setresuid() would signal "all threads" in memory that is the agent's.
 * What fails is told through the shared memory: stage and errno.
 *
 * The search for the file is execvp(3)'s: PATH of the program's own environment, scripts without an
 * interpreter line run by /bin/sh.
 * Limits: before Linux 6.7 there is no such rule, and it does not know MPTCP sockets.
 * Source: clone(2), seccomp(2), landlock(7), vfork(2) "Caveats". */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "kernel.h"
#include "meshfd.h"

#define STACK_SIZE (256u << 10) /* execvpe(3) copies PATH and the file's name to the stack */
#define GUARD_SIZE (64u << 10)  /* below it, never mapped: a page of any size (aarch64: 64 KiB) */
#define BLOCK_MAX (8u << 20)    /* more than execve(2) takes by default: 2 MiB (ARG_MAX) */
#define LISTENER_FD_MIN 3

struct child {
    const struct mfd_spawn_request *request;
    struct sock_fprog filter;
    struct mfd_spawn_result *result; /* in memory shared with the parent */
};

/* --- the program block ------------------------------------------------------------------------------ */

static const char *next_string(const char **at, const char *end)
{
    const char *string = *at;
    size_t length = strnlen(string, (size_t)(end - string));

    if (string + length >= end)
        return NULL;
    *at = string + length + 1;
    return string;
}

static int split_strings(struct mfd_program_view *view, const char *at, const char *end)
{
    const struct mfd_program *program = view->program;

    view->working_dir = next_string(&at, end);
    view->file = view->working_dir == NULL ? NULL : next_string(&at, end);
    if (view->file == NULL || program->n_argv == 0)
        return -EBADMSG;
    view->vectors = calloc((size_t)program->n_argv + program->n_env + 2, sizeof(char *));
    if (view->vectors == NULL)
        return -ENOMEM;
    view->argv = view->vectors;
    view->envp = view->vectors + program->n_argv + 1;
    for (uint32_t i = 0; i < program->n_argv + program->n_env; i++) {
        const char *string = next_string(&at, end);

        if (string == NULL)
            return -EBADMSG;
        view->vectors[i < program->n_argv ? i : i + 1] = (char *)(uintptr_t)string;
    }
    return at == end ? 0 : -EBADMSG;
}

/* mfd_program_open - map a program block and find its strings
 * @ret_view: given back to mfd_program_close(), also after an error
 * Return: 0; -EBADMSG when the block is not sound; -ENOMEM; or what fstat(2) and mmap(2) say. */
int mfd_program_open(int block_fd, struct mfd_program_view *ret_view)
{
    struct mfd_program_view *view = ret_view;
    const struct mfd_program *program;
    struct stat status;
    uint64_t expected;
    void *mapped;

    *view = (struct mfd_program_view){0};
    if (fstat(block_fd, &status) < 0)
        return -errno;
    if (status.st_size < (off_t)sizeof(*program) || status.st_size > (off_t)BLOCK_MAX)
        return -EBADMSG;
    /* not copied: the supervisor, who is trusted, writes a block once and then leaves it alone */
    mapped = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, block_fd, 0);
    if (mapped == MAP_FAILED)
        return -errno;
    program = mapped;
    view->program = program;
    view->size = (size_t)status.st_size;
    expected =
        sizeof(*program) + (uint64_t)program->n_groups * sizeof(uint32_t) + program->strings_size;
    if (program->magic != MFD_PROGRAM_MAGIC || expected != view->size ||
        program->n_argv > view->size || program->n_env > view->size)
        return -EBADMSG;
    view->groups = (const uint32_t *)(program + 1);
    return split_strings(view, (const char *)(view->groups + program->n_groups),
                         (const char *)mapped + view->size);
}

void mfd_program_close(struct mfd_program_view *view)
{
    free(view->vectors);
    if (view->program != NULL)
        (void)munmap((void *)(uintptr_t)view->program, view->size);
    *view = (struct mfd_program_view){0};
}

/* --- in the child ------------------------------------------------------------------------------------- */

static int fail_at(struct child *child, enum mfd_stage stage, int error)
{
    child->result->stage = stage;
    child->result->error = error;
    return 127; /* nobody sees it: the parent reaps and reports the stage */
}

static int install_filter(struct child *child)
{
    const unsigned wanted =
        SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    long fd;

    /* -EACCES: without CAP_SYS_ADMIN a filter needs no_new_privs */
    fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, wanted, &child->filter);
    if (fd < 0 && errno == EACCES) {
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
            return fail_at(child, MFD_STAGE_NO_NEW_PRIVS, errno);
        fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, wanted, &child->filter);
    }
    /* before Linux 5.19 a signal could make a program see EINTR; still better than nothing */
    if (fd < 0 && errno == EINVAL)
        fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER,
                     &child->filter);
    if (fd < 0)
        return fail_at(child, MFD_STAGE_FILTER, errno);
    child->result->listener_fd = (int)fd;
    return 0;
}

/* It stands behind the filter, so its absence is not an error. It needs what the filter needs, or
 * no_new_privs, which the filter would need, too. */
static void leave_connections_to_agent(void)
{
    const struct mfd_landlock_ruleset ruleset = {.handled_access_net = MFD_LANDLOCK_CONNECT_TCP};
    long fd = syscall(SYS_landlock_create_ruleset, &ruleset, sizeof(ruleset), 0);

    if (fd < 0)
        return;
    if (syscall(SYS_landlock_restrict_self, fd, 0) < 0 && errno == EPERM &&
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)
        (void)syscall(SYS_landlock_restrict_self, fd, 0);
    (void)close((int)fd);
}

/* Standard files to 0, 1 and 2: first out of the way of each other, then into place. */
static int place_stdio(const int stdio[3])
{
    int moved[3];

    for (int i = 0; i < 3; i++) {
        moved[i] = fcntl(stdio[i], F_DUPFD_CLOEXEC, LISTENER_FD_MIN);
        if (moved[i] < 0)
            return errno;
    }
    for (int i = 0; i < 3; i++)
        if (dup2(moved[i], i) < 0)
            return errno;
    return 0;
}

static int take_limits(const struct mfd_program *program)
{
    for (int i = 0; i < MFD_RLIMITS; i++)
        if ((program->limited >> i & 1) != 0 &&
            syscall(SYS_prlimit64, 0, i, &program->rlimits[i], NULL) < 0)
            return errno;
    return 0;
}

static int take_identity(const struct mfd_program_view *view)
{
    const struct mfd_program *program = view->program;

    if (program->gid != MFD_ANY) {
        if (syscall(SYS_setgroups, (size_t)program->n_groups, view->groups) < 0)
            return errno;
        if (syscall(SYS_setresgid, program->gid, program->gid, program->gid) < 0)
            return errno;
    }
    if (program->uid != MFD_ANY &&
        syscall(SYS_setresuid, program->uid, program->uid, program->uid) < 0)
        return errno;
    return 0;
}

static void pass_over(int signo)
{
    (void)signo;
}

/* A terminal's stop that came since the clone would stop the child here, and with it the agent, which
 * waits for the exec. It is passed over; exec resets the handlers. */
static void ignore_stops(void)
{
    static const int stops[] = {SIGTSTP, SIGTTIN, SIGTTOU};

    for (size_t i = 0; i < MFD_COUNT(stops); i++) {
        struct sigaction action;

        if (sigaction(stops[i], NULL, &action) == 0 && action.sa_handler == SIG_DFL)
            (void)signal(stops[i], pass_over);
    }
}

static void restore_signals(uint64_t blocked)
{
    sigset_t mask;

    ignore_stops();
    sigemptyset(&mask);
    for (int signo = 1; signo <= 64; signo++)
        if ((blocked >> (signo - 1)) & 1)
            (void)sigaddset(&mask, signo);
    (void)sigprocmask(SIG_SETMASK, &mask, NULL);
}

static int run_child(void *argument)
{
    struct child *child = argument;
    const struct mfd_spawn_request *request = child->request;
    const struct mfd_program_view *view = request->view;
    int error;

    if (request->features->strict)
        leave_connections_to_agent();
    error = install_filter(child);
    if (error != 0)
        return error;
    if (unshare(CLONE_FILES) < 0)
        return fail_at(child, MFD_STAGE_FILES, errno);
    error = request->stdio == NULL ? 0 : place_stdio(request->stdio);
    if (error != 0)
        return fail_at(child, MFD_STAGE_FILES, error);
    if (setrlimit(RLIMIT_NOFILE, &request->nofile) < 0)
        return fail_at(child, MFD_STAGE_FILES, errno);
    error = take_limits(view->program);
    if (error != 0)
        return fail_at(child, MFD_STAGE_LIMITS, error);
    if ((request->flags & MFD_SPAWN_SETSID) != 0)
        (void)setsid(); /* cannot fail: a fresh process leads no group */
    if (view->program->umask != MFD_ANY)
        (void)umask((mode_t)view->program->umask);
    error = take_identity(view);
    if (error != 0)
        return fail_at(child, MFD_STAGE_CREDENTIALS, error);
    if (view->working_dir[0] != '\0' && chdir(view->working_dir) < 0)
        return fail_at(child, MFD_STAGE_CHDIR, errno);
    environ = view->envp;
    if (request->sigchld_ignored)
        (void)signal(SIGCHLD, SIG_IGN);
    restore_signals(view->program->blocked_signals);
    (void)execvpe(view->file, view->argv, view->envp);
    return fail_at(child, MFD_STAGE_EXEC, errno);
}

/* --- in the agent ------------------------------------------------------------------------------------ */

/* Its lowest GUARD_SIZE bytes are out of bounds: the memory is the agent's, and an overflow must not
 * go on quietly. */
static char *stack_open(size_t size)
{
    char *stack = mmap(NULL, size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);

    if (stack == MAP_FAILED)
        return NULL;
    if (mprotect(stack, GUARD_SIZE, PROT_NONE) < 0) {
        (void)munmap(stack, size);
        return NULL;
    }
    return stack;
}

/* mfd_spawn - start a program; returns when it has been exec'ed, or failed to be
 * @ret_result: pid and listener_fd (owned by the caller) on success; stage and error else
 * Return: 0 or -errno; @ret_result is written either way. */
int mfd_spawn(const struct mfd_spawn_request *request, struct mfd_spawn_result *ret_result)
{
    struct sock_filter program[MFD_FILTER_MAX];
    struct child child = {.request = request, .result = ret_result};
    char **saved_environ = environ;
    /* a script without an interpreter line: execvpe(3) builds /bin/sh's argument vector there */
    size_t vector = ((size_t)request->view->program->n_argv + 3) * sizeof(char *);
    size_t stack_size =
        (GUARD_SIZE + STACK_SIZE + vector + GUARD_SIZE - 1) & ~(size_t)(GUARD_SIZE - 1);
    char *stack;
    pid_t pid;

    *ret_result = (struct mfd_spawn_result){.listener_fd = -1};
    child.filter.len = (unsigned short)mfd_filter_build(request->features, program);
    child.filter.filter = program;
    stack = stack_open(stack_size);
    if (stack == NULL) {
        (void)fail_at(&child, MFD_STAGE_CLONE, errno);
        return -ret_result->error;
    }
    pid = clone(run_child, stack + stack_size, CLONE_VM | CLONE_VFORK | CLONE_FILES | SIGCHLD,
                &child);
    if (pid < 0)
        (void)fail_at(&child, MFD_STAGE_CLONE, errno);
    environ = saved_environ;
    (void)munmap(stack, stack_size);
    /* killed before it could say anything: by somebody's SIGKILL, or for want of memory */
    if (ret_result->stage == 0 && ret_result->listener_fd < 0)
        (void)fail_at(&child, MFD_STAGE_CLONE, EINTR);
    if (ret_result->stage != 0) {
        if (pid > 0)
            (void)waitpid(pid, NULL, __WALL);
        mfd_close_at(&ret_result->listener_fd);
        return -ret_result->error;
    }
    ret_result->pid = pid;
    return 0;
}
