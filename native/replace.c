/* replace.c - put another file in the place of a program's socket
 *
 * Theory of operation: what connect() decides cannot always be carried out in place: a socket never changes its
 * family (standin.c) or its network namespace (elsewhere.c). Then the agent makes another file and puts it at every fd
 * number at which the program has the socket, as dup2(2) would:
 *   close-on-exec           of each number, as it was
 *   epoll registrations     parked ones are carried out (parked.c), others looked for and made anew (epoll.c)
 * Flags and options are whose who made the file.
 *
 * Looking for dups, and for threads that wait, takes milliseconds where there are thousands. So the call's
 * own number is replaced first, and our duplicate closed: if nobody has the socket then (watch.c), there are
 * none.
 *
 * The program is not told, and cannot be, where it differs: a process that shares the socket since a fork
 * keeps it; so does a message in flight (SCM_RIGHTS). That is noticed WATCH_NS later (watch.c). Nor would a
 * thread wake that waits for the socket in the kernel: it holds that, and so it is looked for (waiters.c) where
 * somebody does; then the number has the socket again, or one like it, and nothing was replaced.
 *
 * Races: each number is looked at right before it is replaced; another thread that closes it, and opens
 * something else there, in the microsecond in between, loses that.
 * Limits: NUMBERS_MAX numbers of one socket.
 * Source: seccomp_unotify(2) SECCOMP_ADDFD_FLAG_SETFD, kcmp(2), dup(2). */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>

#include "kernel.h"
#include "meshfd.h"

#define NUMBERS_MAX 64
#define WATCH_NS (100 * MFD_NS_PER_MS)

struct numbers { /* fds of the program that are the socket */
    int fds[NUMBERS_MAX];
    bool cloexec[NUMBERS_MAX];
    unsigned n;
};

/* --- the program's numbers ----------------------------------------------------------------------------------- */

struct entry { /* of getdents64(2) */
    uint64_t inode;
    int64_t offset;
    uint16_t size;
    uint8_t type;
    char name[];
};

static void add_number(struct numbers *numbers, pid_t pid, int fd)
{
    unsigned long flags = 0;

    if (numbers->n == NUMBERS_MAX || mfd_target_fd_flags(pid, fd, &flags) < 0)
        return;
    numbers->cloexec[numbers->n] = (flags & O_CLOEXEC) != 0;
    numbers->fds[numbers->n++] = fd;
}

/* After what is there already, the program's other fds that are the same open file. */
static void find_others(const struct mfd_notification *call, const struct mfd_watch *watch,
                        struct numbers *numbers)
{
    static _Alignas(struct entry) char room[8192];
    const int own = (int)call->call.args[0];
    MFD_CLOSE int fds = -1;
    char path[32];
    long n;

    (void)snprintf(path, sizeof(path), "/proc/%d/fd", call->pid);
    fds = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    while (fds >= 0 && (n = syscall(SYS_getdents64, fds, room, sizeof(room))) > 0) {
        for (long at = 0; at < n;) {
            const struct entry *entry = (const void *)&room[at];
            int fd = (int)strtol(entry->name, NULL, 10);

            at += entry->size;
            if (entry->name[0] != '.' && fd != own && mfd_watch_is_at(watch, call->pid, fd))
                add_number(numbers, call->pid, fd);
        }
    }
}

/* --- replacing ----------------------------------------------------------------------------------------------- */

/* Put fd at these numbers, from @first on. What another thread has put there meanwhile stays: the kernel, too,
 * would connect a file that is there no more.
 * Return: 0; -ENOENT: the target is gone; -errno of the call's own number. */
static int put_at(const struct mfd_notification *call, const struct numbers *numbers,
                  unsigned first, const struct mfd_watch *watch, int fd)
{
    for (unsigned i = first; i < numbers->n; i++) {
        int error;

        if (!mfd_watch_is_at(watch, call->pid, numbers->fds[i]))
            continue;
        error = mfd_replace_fd(call, fd, numbers->fds[i], numbers->cloexec[i]);
        if (error < 0 && (i == 0 || error == -ENOENT))
            return error;
    }
    return 0;
}

/* A duplicate of the socket, from another number that has it. Return: 0; -EBADF: none has it any more; -errno. */
static int open_other(const struct mfd_notification *call, const struct numbers *numbers,
                      const struct mfd_watch *watch, int *ret_fd)
{
    MFD_RELEASE int fd = -1;
    int error = numbers->n < 2 ? -EBADF : mfd_target_open_fd(call->pid, numbers->fds[1], &fd);

    if (error == 0 && !mfd_watch_is_at(watch, getpid(), fd))
        error = -EBADF; /* by another thread: closed, and used anew */
    if (error == 0)
        *ret_fd = mfd_take_fd(&fd);
    return error;
}

/* The call's own number gets the socket back that another number has. Where none has, only a thread that waits
 * knows it; then it is a new one that is like it but for being bound. */
static int put_back(struct mfd_agent *agent, const struct mfd_notification *call,
                    const struct numbers *numbers, const struct mfd_watch *watch,
                    const struct mfd_replacement *replacement)
{
    MFD_RELEASE int fd = -1;
    int error = open_other(call, numbers, watch, &fd);
    const bool is_new = error == -EBADF;

    if (is_new)
        error = replacement->revive(agent, replacement, &fd);
    if (error == 0)
        error = mfd_replace_fd(call, fd, numbers->fds[0], numbers->cloexec[0]);
    if (error >= 0 && is_new)
        mfd_parked_replace(agent, replacement->old_cookie, fd);
    return error < 0 ? error : 0;
}

/* The call's own number has the new file now, and we have let go of the old socket: if nobody has it, there is
 * nothing to look for. Else some number may, or a thread that waits for it.
 * Return: 0; -EBUSY: a thread does, and no number has the new file; -ENOENT: the target is gone; -errno. */
static int replace_others(struct mfd_agent *agent, const struct mfd_notification *call,
                          struct numbers *numbers, const struct mfd_watch *watch,
                          const struct mfd_replacement *replacement)
{
    int error;

    if (!mfd_watch_is_open(watch))
        return 0;
    if (numbers->n == 1)
        find_others(call, watch, numbers);
    if (!mfd_waiters_exist(call, numbers->fds, numbers->n))
        return put_at(call, numbers, 1, watch, replacement->fd);
    error = put_back(agent, call, numbers, watch, replacement);
    return error < 0 ? error : -EBUSY;
}

/* Where the program has registered it, which is looked for if it may be anywhere. Return: 0 or -errno. */
static int find_registrations(struct mfd_agent *agent, const struct mfd_notification *call,
                              int old_fd, const struct mfd_watch *watch, struct numbers *numbers,
                              struct mfd_registrations **ret_found)
{
    if (!mfd_known_has(&agent->parked.registered, old_fd))
        return 0;
    find_others(call, watch, numbers);
    return mfd_epoll_collect(call->pid, numbers->fds, numbers->n, ret_found);
}

static int put_in_place(struct mfd_agent *agent, const struct mfd_attempt *attempt,
                        const struct mfd_replacement *replacement, int *old_fd,
                        const struct mfd_watch *watch)
{
    const struct mfd_notification *call = &attempt->call;
    struct mfd_registrations *registrations = NULL;
    struct numbers numbers = {.n = 0};
    int error;

    add_number(&numbers, call->pid, (int)call->call.args[0]);
    if (numbers.n == 0)
        return mfd_notify_is_alive(call) ? -EBADF : -ENOENT;
    error = find_registrations(agent, call, *old_fd, watch, &numbers, &registrations);
    if (error == 0 && !mfd_notify_is_alive(call))
        error = -ENOENT;
    if (error == 0) {
        const struct numbers own = {
            .fds = {numbers.fds[0]}, .cloexec = {numbers.cloexec[0]}, .n = 1};

        error = put_at(call, &own, 0, watch, replacement->fd);
    }
    mfd_release_at(old_fd);
    if (error == 0)
        error = replace_others(agent, call, &numbers, watch, replacement);
    if (error < 0) {
        (void)mfd_epoll_restore(registrations, -1);
        return error;
    }
    if (registrations != NULL) /* it may be replaced in its turn */
        mfd_known_add(&agent->parked.registered, mfd_socket_cookie(replacement->fd));
    error = mfd_epoll_restore(registrations, replacement->fd);
    if (error < 0)
        mfd_control_notice(agent, MFD_NOTICE_PARKED, call->pid, -error, &attempt->asked, MFD_ANY);
    return 0;
}

/* --- did anybody else have it? ---------------------------------------------------------------------------- */

/* Look later, for one socket at a time: the program's own numbers are gone when its call has returned.
 * @watch: taken over */
static void look_later(struct mfd_agent *agent, const struct mfd_attempt *attempt,
                       struct mfd_watch *watch)
{
    struct mfd_watched *watched = &agent->watched;

    if (watched->due_ns != 0 || ((agent->noticed >> MFD_NOTICE_SHARED) & 1) != 0 ||
        !mfd_watch_is_open(watch)) {
        mfd_watch_close(watch);
        return;
    }
    watched->due_ns = mfd_now_ns() + WATCH_NS;
    watched->watch = *watch;
    watched->pid = attempt->call.pid;
    watched->asked = attempt->asked;
}

/* mfd_replaced_expire - is the socket that was watched still somebody's? */
void mfd_replaced_expire(struct mfd_agent *agent, uint64_t now_ns)
{
    struct mfd_watched *watched = &agent->watched;

    if (watched->due_ns == 0 || watched->due_ns > now_ns)
        return;
    if (mfd_watch_is_open(&watched->watch))
        mfd_control_notice(agent, MFD_NOTICE_SHARED, watched->pid, 0, &watched->asked, MFD_ANY);
    mfd_watch_close(&watched->watch);
    watched->due_ns = 0;
}

/* mfd_replaced_next_ns - when to look; UINT64_MAX: nothing is watched */
uint64_t mfd_replaced_next_ns(const struct mfd_watched *watched)
{
    return watched->due_ns == 0 ? UINT64_MAX : watched->due_ns;
}

/* mfd_replace - put a file where the program has the socket that it is connecting
 * @old_fd: the agent's duplicate of the socket; closed before others are looked for
 * Return: 0; -ENOENT: the target is gone; another -errno, and a notice says why: then all is as before, but for dups
 * of a socket that a thread waits for (put_back). */
int mfd_replace(struct mfd_agent *agent, const struct mfd_attempt *attempt,
                struct mfd_replacement *replacement, int *old_fd)
{
    struct mfd_watch watch;
    int error = mfd_watch_open(*old_fd, &watch);

    replacement->old_cookie = mfd_socket_cookie(*old_fd);
    if (error == 0) {
        error = put_in_place(agent, attempt, replacement, old_fd, &watch);
        if (error < 0)
            mfd_watch_close(&watch);
    }
    if (error == 0) {
        look_later(agent, attempt, &watch);
        mfd_parked_replace(agent, replacement->old_cookie, replacement->fd);
    } else if (error != -ENOENT) {
        mfd_parked_settle(agent, attempt->call.pid, (int)attempt->call.call.args[0]);
        mfd_control_notice(agent, error == -EBUSY ? MFD_NOTICE_WAITED_FOR : MFD_NOTICE_STANDIN,
                           attempt->call.pid, error == -EBUSY ? 0 : -error, &attempt->asked,
                           MFD_ANY);
    }
    return error;
}
