/* target.c - look into the thread whose call waits
 *
 * Every function takes the thread's id as the notification gave it. Between receiving a call and
 * using such an id the thread may have been killed and its id given to another; so whoever uses what
 * was learned here checks mfd_notify_is_alive() afterwards, and acts only then.
 * Permission is ptrace's (PTRACE_MODE_ATTACH): the agent is an ancestor with the same identity, or
 * privileged; a program that made itself non-dumpable is out of an unprivileged agent's reach (EPERM).
 * Source: process_vm_readv(2), pidfd_getfd(2), kcmp(2), proc(5). */
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "kernel.h"
#include "meshfd.h"

#define KNOWN_THREADS 64
#define KNOWN_NS (100 * MFD_NS_PER_MS) /* after the last call of any */
#define STATUS_ROOM 4096               /* /proc/PID/status has about 1500 bytes */
#define IDENTITY_ROOM 8192             /* MFD_GROUPS_MAX groups of 11 bytes, too */

enum { /* ids of a line of /proc/PID/status */
    ID_REAL,
    ID_EFFECTIVE,
    ID_SAVED,
    ID_OF_FILES,
    IDS_EACH
};

/* mfd_target_read - copy size bytes of its memory
 * Return: 0; -EFAULT when they are not all there; -EPERM; -ESRCH. */
int mfd_target_read(pid_t pid, uint64_t remote, void *local, size_t size)
{
    struct iovec to = {.iov_base = local, .iov_len = size};
    struct iovec from = {.iov_base = (void *)(uintptr_t)remote, .iov_len = size};
    ssize_t n;

    if (size == 0)
        return 0;
    n = process_vm_readv(pid, &to, 1, &from, 1, 0);
    if (n < 0)
        return -errno;
    return (size_t)n == size ? 0 : -EFAULT;
}

/* The beginning of a file below /proc/PID. Return: 0 or -errno. */
static int read_proc(pid_t pid, const char *name, char *ret_text, size_t room)
{
    char path[48];
    MFD_CLOSE int fd = -1;
    ssize_t n;

    (void)snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    n = read(fd, ret_text, room - 1);
    if (n < 0)
        return -errno;
    ret_text[n] = '\0';
    return 0;
}

/* A number of /proc/PID/status; 0 when the line is not there. @name: with newline and colon */
static uint64_t status_number(const char *text, const char *name, int base)
{
    const char *line = strstr(text, name);

    return line == NULL ? 0 : strtoull(line + strlen(name), NULL, base);
}

/* mfd_target_write - copy size bytes to its memory
 * Return: 0; -EFAULT when not all of them can be written; -EPERM; -ESRCH. */
int mfd_target_write(pid_t pid, uint64_t remote, const void *local, size_t size)
{
    struct iovec from = {.iov_base = (void *)(uintptr_t)local, .iov_len = size};
    struct iovec to = {.iov_base = (void *)(uintptr_t)remote, .iov_len = size};
    ssize_t n;

    if (size == 0)
        return 0;
    n = process_vm_writev(pid, &from, 1, &to, 1, 0);
    if (n < 0)
        return -errno;
    return (size_t)n == size ? 0 : -EFAULT;
}

/* mfd_target_write_both - write to two places of its memory, the second only if all of the first could be
 * Return: 0; -EFAULT when not all can be written; -EPERM; -ESRCH. */
int mfd_target_write_both(pid_t pid, const struct iovec remote[2], const struct iovec local[2])
{
    ssize_t n = process_vm_writev(pid, local, 2, remote, 2, 0);

    if (n < 0)
        return -errno;
    return (size_t)n == local[0].iov_len + local[1].iov_len ? 0 : -EFAULT;
}

static bool is_in_our_userns(pid_t pid)
{
    char path[32];
    struct stat theirs;
    struct stat ours;

    (void)snprintf(path, sizeof(path), "/proc/%d/ns/user", pid);
    return stat(path, &theirs) == 0 && stat("/proc/self/ns/user", &ours) == 0 &&
           theirs.st_ino == ours.st_ino;
}

/* mfd_target_is_capable - has it CAP_NET_ADMIN and CAP_NET_RAW, in our own user namespace? */
bool mfd_target_is_capable(pid_t pid)
{
    const uint64_t needed = 1ULL << CAP_NET_ADMIN | 1ULL << CAP_NET_RAW;
    char text[STATUS_ROOM];

    return read_proc(pid, "status", text, sizeof(text)) == 0 && is_in_our_userns(pid) &&
           (status_number(text, "\nCapEff:", 16) & needed) == needed;
}

/* The numbers of a line of /proc/PID/status. Return: how many there were, at most @n. */
static unsigned status_numbers(const char *text, const char *name, unsigned *ret, unsigned n)
{
    const char *at = strstr(text, name);
    unsigned found = 0;

    if (at == NULL)
        return 0;
    at += strlen(name);
    while (found < n) {
        at += strspn(at, " \t");
        if (*at < '0' || *at > '9')
            break;
        ret[found++] = (unsigned)strtoul(at, NULL, 10);
        at += strspn(at, "0123456789");
    }
    return found;
}

/* mfd_target_identity - who it is, in the eyes of our own user namespace
 * Return: 0; -ESRCH; what proc(5) says. */
int mfd_target_identity(pid_t pid, struct mfd_identity *ret)
{
    static char text[IDENTITY_ROOM];
    unsigned uids[IDS_EACH];
    unsigned gids[IDS_EACH];
    int error = read_proc(pid, "status", text, sizeof(text));

    if (error < 0)
        return error == -ENOENT ? -ESRCH : error;
    if (status_numbers(text, "\nUid:", uids, IDS_EACH) < IDS_EACH ||
        status_numbers(text, "\nGid:", gids, IDS_EACH) < IDS_EACH)
        return -ESRCH;
    ret->uid = uids[ID_EFFECTIVE];
    ret->gid = gids[ID_EFFECTIVE];
    ret->fs_uid = uids[ID_OF_FILES];
    ret->fs_gid = gids[ID_OF_FILES];
    ret->n_groups = status_numbers(text, "\nGroups:", ret->groups, MFD_GROUPS_MAX);
    ret->capabilities = is_in_our_userns(pid) ? status_number(text, "\nCapEff:", 16) : 0;
    return 0;
}

/* Before Linux 6.9 a pidfd is a whole process's. */
static int thread_group_of(pid_t pid)
{
    char text[STATUS_ROOM];
    int error = read_proc(pid, "status", text, sizeof(text));

    if (error < 0)
        return error;
    error = (int)status_number(text, "\nTgid:", 10);
    return error == 0 ? -ESRCH : error;
}

/* mfd_target_signalled - does a signal wait that would end a sleep of this thread?
 * A signal sent to a process is its first thread's, if that has it unblocked; else it may be any one's
 * (kernel/signal.c, complete_signal). Ignored signals never wait. */
enum mfd_signalled mfd_target_signalled(pid_t pid)
{
    char text[STATUS_ROOM];
    uint64_t unblocked;

    if (read_proc(pid, "status", text, sizeof(text)) < 0)
        return MFD_NOT_SIGNALLED;
    unblocked = ~status_number(text, "\nSigBlk:", 16);
    if ((status_number(text, "\nSigPnd:", 16) & unblocked) != 0)
        return MFD_SIGNALLED;
    if ((status_number(text, "\nShdPnd:", 16) & unblocked) == 0)
        return MFD_NOT_SIGNALLED;
    return status_number(text, "\nTgid:", 10) == (uint64_t)pid ||
                   status_number(text, "\nThreads:", 10) == 1
               ? MFD_SIGNALLED
               : MFD_SIGNALLED_PERHAPS;
}

static int open_pidfd(pid_t pid)
{
    static bool threads_unsupported;
    long fd = -1;

    if (!threads_unsupported) {
        fd = syscall(SYS_pidfd_open, pid, PIDFD_THREAD);
        if (fd < 0 && errno != EINVAL)
            return -errno;
    }
    if (fd < 0) {
        int leader = thread_group_of(pid);

        threads_unsupported = true;
        if (leader < 0)
            return leader;
        fd = syscall(SYS_pidfd_open, leader, 0);
    }
    return fd < 0 ? -errno : (int)fd;
}

/* mfd_target_pidfd - a pidfd that becomes readable when the thread (before Linux 6.9: its process) ends
 * @ret_fd: owned by the caller
 * Return: 0; -ESRCH; -EMFILE. */
int mfd_target_pidfd(pid_t pid, int *ret_fd)
{
    int fd = open_pidfd(pid);

    if (fd < 0)
        return fd;
    *ret_fd = fd;
    return 0;
}

/* pidfds of the threads that called last. A pidfd names one thread for ever: when the id has gone to
 * another thread, it says ESRCH and is opened anew. So a stale one is never mistaken. */
static struct known_thread {
    pid_t pid; /* 0: none */
    int pidfd;
    pid_t process; /* 0: not asked yet */
} known_threads[KNOWN_THREADS];

static uint64_t known_until_ns = UINT64_MAX; /* UINT64_MAX: none is known */

static struct known_thread *slot_of(pid_t pid)
{
    return &known_threads[(unsigned)pid % KNOWN_THREADS];
}

static void forget(struct known_thread *known)
{
    if (known->pid != 0)
        (void)close(known->pidfd);
    known->pid = 0;
}

/* mfd_target_forget_all - give up what is kept for speed: fds run out, or nobody has called for a while */
void mfd_target_forget_all(void)
{
    for (unsigned i = 0; i < KNOWN_THREADS; i++)
        forget(&known_threads[i]);
    known_until_ns = UINT64_MAX;
}

/* mfd_target_next_ns - when to forget; UINT64_MAX: there is nothing to forget */
uint64_t mfd_target_next_ns(void)
{
    return known_until_ns;
}

static int known_pidfd(pid_t pid)
{
    struct known_thread *known = slot_of(pid);
    int pidfd;

    known_until_ns = mfd_now_ns() + KNOWN_NS;
    if (known->pid == pid)
        return known->pidfd;
    pidfd = open_pidfd(pid);
    if (pidfd < 0)
        return pidfd;
    forget(known);
    *known = (struct known_thread){.pid = pid, .pidfd = pidfd};
    return pidfd;
}

/* mfd_target_open_fd - a duplicate of its open file
 * Return: 0; -EBADF when it has no such fd; -EPERM; -ESRCH; -EMFILE. */
int mfd_target_open_fd(pid_t pid, int fd, int *ret_fd)
{
    bool was_known = slot_of(pid)->pid == pid;
    int pidfd = known_pidfd(pid);
    long opened;

    if (pidfd < 0)
        return pidfd;
    opened = syscall(SYS_pidfd_getfd, pidfd, fd, 0);
    if (opened < 0 && errno == ESRCH && was_known) {
        forget(slot_of(pid));
        pidfd = known_pidfd(pid);
        if (pidfd < 0)
            return pidfd;
        opened = syscall(SYS_pidfd_getfd, pidfd, fd, 0);
    }
    if (opened < 0)
        return -errno;
    mfd_class_keep(pid, (int)opened);
    *ret_fd = (int)opened;
    return 0;
}

static int ask_cgroup(int pidfd, uint64_t *ret_id)
{
    struct mfd_pidfd_info info = {.mask = MFD_PIDFD_INFO_CGROUPID};

    if (ioctl(pidfd, MFD_PIDFD_GET_INFO, &info) < 0)
        return -errno;
    if ((info.mask & MFD_PIDFD_INFO_CGROUPID) == 0)
        return -ENOTTY;
    *ret_id = info.cgroupid;
    return 0;
}

/* mfd_target_cgroup - the id of its cgroup (version 2), which no other has as long as it is there
 * Return: 0; -ENOTTY where the kernel does not tell; -ESRCH; -EMFILE. */
int mfd_target_cgroup(pid_t pid, uint64_t *ret_id)
{
    bool was_known = slot_of(pid)->pid == pid;
    int pidfd = known_pidfd(pid);
    int error;

    if (pidfd < 0)
        return pidfd;
    error = ask_cgroup(pidfd, ret_id);
    if (error != -ESRCH || !was_known)
        return error;
    forget(slot_of(pid));
    pidfd = known_pidfd(pid);
    return pidfd < 0 ? pidfd : ask_cgroup(pidfd, ret_id);
}

/* mfd_target_process - the process of a thread, whose id outlives the thread's
 * Return: the id, or -errno. */
pid_t mfd_target_process(pid_t pid)
{
    struct known_thread *known = slot_of(pid);

    if (known->pid != pid)
        return thread_group_of(pid);
    if (known->process == 0)
        known->process = thread_group_of(pid);
    return known->process;
}

/* mfd_target_order - where is its open file in the kernel's order of them all, seen from our own_fd?
 * Return: 0: it is the same; 1: after it; 2: before it; another: there is no order; -errno as below. */
int mfd_target_order(pid_t pid, int fd, int own_fd)
{
    long order = syscall(SYS_kcmp, getpid(), pid, KCMP_FILE, (long)own_fd, (long)fd);

    return order < 0 ? -errno : (int)order;
}

/* mfd_target_same_file - is its fd the same open file as our own_fd?
 * Return: 1 or 0; -ENOSYS where the kernel cannot compare; -EPERM; -EBADF; -ESRCH. */
int mfd_target_same_file(pid_t pid, int fd, int own_fd)
{
    int order = mfd_target_order(pid, fd, own_fd);

    return order < 0 ? order : order == 0;
}

/* mfd_target_in_netns - is its network namespace ours? Said no when it cannot be seen. */
bool mfd_target_in_netns(pid_t pid, const struct mfd_netns *netns)
{
    char path[32];
    char name[MFD_NETNS_NAME_ROOM] = {0};

    (void)snprintf(path, sizeof(path), "/proc/%d/ns/net", pid);
    return readlink(path, name, sizeof(name) - 1) > 0 && strcmp(name, netns->name) == 0;
}

/* mfd_target_fd_flags - O_CLOEXEC and the file's status flags, as fdinfo shows them
 * Return: 0; -EBADF; -ESRCH; -EPERM. */
int mfd_target_fd_flags(pid_t pid, int fd, unsigned long *ret_flags)
{
    char text[256];
    char name[24];
    const char *line;
    int error;

    (void)snprintf(name, sizeof(name), "fdinfo/%d", fd);
    error = read_proc(pid, name, text, sizeof(text));
    if (error < 0)
        return error == -ENOENT ? -EBADF : error;
    line = strstr(text, "flags:");
    if (line == NULL)
        return -EBADF;
    *ret_flags = strtoul(line + strlen("flags:"), NULL, 8);
    return 0;
}
