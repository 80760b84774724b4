/* epoll.c - registrations of a socket in the program's epoll instances
 *
 * Theory of operation: a socket that is replaced (activation.c, standin.c) drops out of the epoll
 * instances that the program had put it in. So before, the instances that hold it are looked for among the
 * program's fds (kcmp, KCMP_EPOLL_TFD) and the registration's events and data are read from their fdinfo;
 * afterwards the new socket is registered in the same way. epoll knows a registration by file and fd
 * number, in the table of whoever registers: so that is done by a child with a table of its own, in
 * which the new file sits at the program's number. parked.c, which knows what to register without looking,
 * has it done here, too.
 *
 * Rare: most programs register a listening socket after listen(), and then nothing is found. Reading
 * /proc costs about 2 us a fd of the program.
 * Limits: MFD_REGISTRATIONS_MAX; one more is -ENOSPC.
 * Source: epoll(7), kcmp(2), proc(5), fs/eventpoll.c (ep_find). */
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "kernel.h"
#include "meshfd.h"

#define STACK_SIZE (64u << 10)

/* One agent has one thread: one set is enough, and nothing is allocated. */
static struct mfd_registrations scratch;

static bool is_epoll(const char *fds_path, const char *name)
{
    char path[64];
    char link[64];
    ssize_t n;

    (void)snprintf(path, sizeof(path), "%s/%.12s", fds_path, name);
    n = readlink(path, link, sizeof(link) - 1);
    if (n < 0)
        return false;
    link[n] = '\0';
    return strcmp(link, "anon_inode:[eventpoll]") == 0;
}

/* mfd_epoll_has - has the program put its fd in this epoll instance of its own?
 * Return: 1; 0: not this file under this number; -EINVAL: that is no epoll instance; -EBADF; -EPERM; -ENOSYS. */
int mfd_epoll_has(pid_t pid, int epoll_fd, int fd)
{
    struct kcmp_epoll_slot slot = {.efd = (uint32_t)epoll_fd, .tfd = (uint32_t)fd, .toff = 0};
    long order = syscall(SYS_kcmp, pid, pid, KCMP_EPOLL_TFD, (long)fd, &slot);

    if (order < 0)
        return errno == ENOENT ? 0 : -errno;
    return order == 0;
}

/* The registration of fd as /proc/PID/fdinfo/EPOLL_FD tells it. Return: 0, -ENOENT. */
static int read_event(pid_t pid, int epoll_fd, int fd, struct epoll_event *ret_event)
{
    char line[256];
    char path[48];
    FILE *info;
    int found = -ENOENT;

    (void)snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", pid, epoll_fd);
    info = fopen(path, "re");
    if (info == NULL)
        return -errno;
    while (found < 0 && fgets(line, sizeof(line), info) != NULL) {
        unsigned long long data;
        unsigned events;
        int number;

        if (sscanf(line, "tfd: %d events: %x data: %llx", &number, &events, &data) == 3 &&
            number == fd) {
            *ret_event = (struct epoll_event){.events = events, .data.u64 = data};
            found = 0;
        }
    }
    (void)fclose(info);
    return found;
}

static int take_note(pid_t pid, int epoll_fd, int fd)
{
    struct mfd_registration *next = &scratch.found[scratch.n];
    int error;

    if (scratch.n == MFD_REGISTRATIONS_MAX)
        return -ENOSPC;
    error = read_event(pid, epoll_fd, fd, &next->event);
    if (error == 0)
        error = mfd_target_open_fd(pid, epoll_fd, &next->epoll_fd);
    next->at_fd = fd;
    if (error == 0)
        scratch.n++;
    return error;
}

/* mfd_epoll_collect - find where the program has registered any of these fds
 * @ret_found: valid until the next call; given to mfd_epoll_restore() in any case
 * Return: 0; -ENOSPC; what proc(5) and pidfd_getfd(2) say. */
int mfd_epoll_collect(pid_t pid, const int *numbers, unsigned n_numbers,
                      struct mfd_registrations **ret_found)
{
    char fds_path[32];
    struct dirent *entry;
    DIR *fds;
    int error = 0;

    scratch.n = 0;
    *ret_found = &scratch;
    (void)snprintf(fds_path, sizeof(fds_path), "/proc/%d/fd", pid);
    fds = opendir(fds_path);
    if (fds == NULL)
        return -errno;
    while (error == 0 && (entry = readdir(fds)) != NULL) {
        if (entry->d_name[0] != '.' && is_epoll(fds_path, entry->d_name)) {
            int epoll_fd = (int)strtol(entry->d_name, NULL, 10);

            for (unsigned i = 0; error == 0 && i < n_numbers; i++) {
                if (mfd_epoll_has(pid, epoll_fd, numbers[i]) == 1)
                    error = take_note(pid, epoll_fd, numbers[i]);
                if (error == -ENOENT || error == -EBADF)
                    error = 0; /* closed, or taken out, by another thread meanwhile */
            }
        }
    }
    (void)closedir(fds);
    if (error < 0)
        (void)mfd_epoll_restore(&scratch, -1);
    return error;
}

/* Is this a number that the file is to have? */
static bool is_wanted(const struct mfd_registrations *registrations, int number)
{
    int last = -1;

    for (unsigned i = 0; i < registrations->n; i++) {
        if (registrations->found[i].at_fd == last) /* most have one number */
            continue;
        last = registrations->found[i].at_fd;
        if (last == number)
            return true;
    }
    return false;
}

/* Our fd, at a number that putting the file at its own will not hit. Those that are met on the way stay taken. */
static int move_aside(const struct mfd_registrations *registrations, int fd)
{
    while (fd >= 0 && is_wanted(registrations, fd))
        fd = dup(fd);
    return fd;
}

/* In a child with an fd table of its own. */
static int register_all(void *argument)
{
    struct mfd_registrations *registrations = argument;
    int file_fd = move_aside(registrations, registrations->file_fd);

    for (unsigned i = 0; i < registrations->n; i++)
        registrations->moved[i] = move_aside(registrations, registrations->found[i].epoll_fd);
    for (unsigned i = 0; i < registrations->n; i++) {
        struct mfd_registration *one = &registrations->found[i];

        if (file_fd < 0 || one->at_fd < 0 || dup2(file_fd, one->at_fd) < 0 ||
            epoll_ctl(registrations->moved[i], EPOLL_CTL_ADD, one->at_fd, &one->event) < 0)
            registrations->error = errno;
    }
    return 0;
}

static int register_in_child(struct mfd_registrations *registrations)
{
    void *stack = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    pid_t pid;

    if (stack == MAP_FAILED)
        return -errno;
    /* no exit signal: it is reaped here, and children.c never hears of it (__WCLONE) */
    pid = clone(register_all, (char *)stack + STACK_SIZE, CLONE_VM | CLONE_VFORK, registrations);
    if (pid < 0)
        registrations->error = errno;
    else
        (void)waitpid(pid, NULL, (int)__WCLONE);
    (void)munmap(stack, STACK_SIZE);
    return -registrations->error;
}

/* mfd_epoll_register - register file_fd in each of these, under the number that each says
 * Return: 0, or -errno of one that failed; the others are there. */
int mfd_epoll_register(struct mfd_registrations *registrations, int file_fd)
{
    registrations->file_fd = file_fd;
    registrations->error = 0;
    return registrations->n == 0 ? 0 : register_in_child(registrations);
}

/* mfd_epoll_restore - register file_fd where the old file was found, and give up what was found
 * @file_fd: -1: only give up
 * Return: 0 or -errno. */
int mfd_epoll_restore(struct mfd_registrations *found, int file_fd)
{
    int error = 0;

    if (found == NULL)
        return 0;
    if (file_fd >= 0)
        error = mfd_epoll_register(found, file_fd);
    for (unsigned i = 0; i < found->n; i++)
        mfd_release_at(&found->found[i].epoll_fd); /* another thread may have put anything there */
    found->n = 0;
    return error;
}
