/* waiters.c - threads of a program that wait for a socket in the kernel
 *
 * Theory of operation: a thread that sleeps in poll(2), select(2), read(2) and the like holds the open file,
 * not the fd: if another file is put at the number, it goes on waiting for the old one, which will never
 * wake it. So where somebody has the file still that was replaced, the program's other threads are looked at:
 * /proc/PID/task/TID/syscall tells the call that a thread sleeps in, and its arguments.
 *
 * On the sockets that meshfd replaces, which were never connected, such calls return at once (ENOTCONN,
 * POLLHUP), so only a select() that asks for exceptional conditions alone can really wait. All the same the
 * others are looked for. Threads in epoll_wait(2) need nothing: they wait for the instance.
 *
 * Limits: THREADS_MAX threads, POLLED_MAX entries of poll(), what is beyond is not looked at; a thread is taken
 * to make its calls by the ABI of the connect(). A program of one thread is not looked at: it is in connect().
 * Source: proc(5), poll(2), select(2). */
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "abi.h"
#include "meshfd.h"

#define THREADS_MAX 1024
#define POLLED_MAX 4096
#define ALONE 3 /* links of /proc/PID/task: itself, its parent, one thread */

struct sleep { /* what a thread sleeps in */
    pid_t pid;
    bool compat; /* nr is of the 32-bit ABI */
    long nr;
    unsigned long long args[MFD_CALL_ARGS];
};

static bool is_one_of(int fd, const int *fds, unsigned n_fds)
{
    for (unsigned i = 0; i < n_fds; i++)
        if (fds[i] == fd)
            return true;
    return false;
}

static bool polls(const struct sleep *sleep, const int *fds, unsigned n_fds)
{
    static struct pollfd polled[POLLED_MAX];
    unsigned long long n = sleep->args[1];

    if (n > POLLED_MAX)
        n = POLLED_MAX;
    if (mfd_target_read(sleep->pid, sleep->args[0], polled, n * sizeof(polled[0])) < 0)
        return false;
    for (unsigned long long i = 0; i < n; i++)
        if (is_one_of(polled[i].fd, fds, n_fds))
            return true;
    return false;
}

static bool is_in_set(const struct sleep *sleep, unsigned long long set, int fd)
{
    uint8_t byte; /* of words of any size: their first byte has the lowest bits */

    return set != 0 && fd >= 0 && (unsigned long long)fd < sleep->args[0] &&
           mfd_target_read(sleep->pid, set + (unsigned)fd / 8, &byte, sizeof(byte)) == 0 &&
           ((byte >> ((unsigned)fd % 8)) & 1) != 0;
}

static bool selects(const struct sleep *sleep, const int *fds, unsigned n_fds)
{
    for (unsigned i = 0; i < n_fds; i++)
        for (unsigned set = 1; set <= 3; set++)
            if (is_in_set(sleep, sleep->args[set], fds[i]))
                return true;
    return false;
}

static bool waits(const struct sleep *sleep, const int *fds, unsigned n_fds)
{
    const struct mfd_abi *abi = sleep->compat ? &mfd_abi_compat : &mfd_abi_native;

    if (sleep->nr < 0) /* in no call; nor is one that the ABI has not */
        return false;
    if (sleep->nr == abi->poll || sleep->nr == abi->ppoll || sleep->nr == abi->ppoll_time64)
        return polls(sleep, fds, n_fds);
    if (sleep->nr == abi->select || sleep->nr == abi->pselect6 || sleep->nr == abi->pselect6_time64)
        return selects(sleep, fds, n_fds);
    if (sleep->compat)
        return false;
    switch (sleep->nr) {
    case SYS_read:
    case SYS_readv:
    case SYS_recvfrom:
    case SYS_recvmsg:
    case SYS_write:
    case SYS_writev:
    case SYS_sendto:
    case SYS_sendmsg:
        return is_one_of((int)sleep->args[0], fds, n_fds);
    default:
        return false;
    }
}

/* Return: whether it sleeps in a call; one that runs says "running". */
static bool read_sleep(const char *path, struct sleep *ret)
{
    char text[256];
    MFD_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

    if (n <= 0)
        return false;
    text[n] = '\0';
    return sscanf(text, "%ld %llx %llx %llx %llx %llx %llx", &ret->nr, &ret->args[0], &ret->args[1],
                  &ret->args[2], &ret->args[3], &ret->args[4], &ret->args[5]) == 7;
}

/* mfd_waiters_exist - does a thread of the program that makes this call wait for what is at one of these fds? */
bool mfd_waiters_exist(const struct mfd_notification *call, const int *fds, unsigned n_fds)
{
    const pid_t pid = call->pid;
    char path[64];
    struct stat status;
    struct dirent *entry;
    bool found = false;
    DIR *tasks;

    (void)snprintf(path, sizeof(path), "/proc/%d/task", pid);
    if (stat(path, &status) < 0 || status.st_nlink <= ALONE)
        return false;
    tasks = opendir(path);
    if (tasks == NULL)
        return false;
    for (unsigned n = 0; !found && n < THREADS_MAX && (entry = readdir(tasks)) != NULL; n++) {
        struct sleep sleep = {.pid = pid, .compat = call->call.compat};

        if (entry->d_name[0] == '.')
            continue;
        (void)snprintf(path, sizeof(path), "/proc/%d/task/%.12s/syscall", pid, entry->d_name);
        found = read_sleep(path, &sleep) && waits(&sleep, fds, n_fds);
    }
    (void)closedir(tasks);
    return found;
}
