/* epoll.c - registrations of a socket in the program's epoll instances
 *
 * Theory of operation: a socket that is replaced (activation.c) drops out of the epoll instances that
 * the program had put it in. So before, the instances that hold it are looked for among the program's
 * fds (kcmp, KCMP_EPOLL_TFD) and the registration's events and data are read from their fdinfo;
 * afterwards the new socket is registered in the same way. epoll knows a registration by file and fd
 * number, in the table of whoever registers: so that is done by a child with a table of its own, in
 * which the new file sits at the program's number.
 *
 * Rare: most programs register a listening socket after listen(), and then nothing is found. Reading
 * /proc costs about 2 us a fd of the program.
 * Limits: REGISTRATIONS_MAX instances; one more is -ENOSPC.
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

#define REGISTRATIONS_MAX 16
#define STACK_SIZE (64u << 10)

struct registration {
    int epoll_fd; /* the agent's own duplicate */
    struct epoll_event event;
};

struct mfd_registrations {
    struct registration found[REGISTRATIONS_MAX];
    unsigned n;
    int file_fd; /* while registering: the file, and the number it is to have */
    int at_fd;
    int error;
};

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

static bool is_registered(pid_t pid, int epoll_fd, int fd)
{
    struct kcmp_epoll_slot slot = {.efd = (uint32_t)epoll_fd, .tfd = (uint32_t)fd, .toff = 0};

    return syscall(SYS_kcmp, pid, pid, KCMP_EPOLL_TFD, (long)fd, &slot) == 0;
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
    struct registration *next = &scratch.found[scratch.n];
    int error;

    if (scratch.n == REGISTRATIONS_MAX)
        return -ENOSPC;
    error = read_event(pid, epoll_fd, fd, &next->event);
    if (error == 0)
        error = mfd_target_open_fd(pid, epoll_fd, &next->epoll_fd);
    if (error == 0)
        scratch.n++;
    return error;
}

/* mfd_epoll_collect - find where the program has registered fd
 * @ret_found: valid until the next call; given to mfd_epoll_restore() in any case
 * Return: 0; -ENOSPC; what proc(5) and pidfd_getfd(2) say. */
int mfd_epoll_collect(pid_t pid, int fd, struct mfd_registrations **ret_found)
{
    char fds_path[32];
    struct dirent *entry;
    DIR *fds;
    int error = 0;

    scratch = (struct mfd_registrations){0};
    *ret_found = &scratch;
    (void)snprintf(fds_path, sizeof(fds_path), "/proc/%d/fd", pid);
    fds = opendir(fds_path);
    if (fds == NULL)
        return -errno;
    while (error == 0 && (entry = readdir(fds)) != NULL) {
        if (entry->d_name[0] != '.' && is_epoll(fds_path, entry->d_name)) {
            int epoll_fd = (int)strtol(entry->d_name, NULL, 10);

            if (is_registered(pid, epoll_fd, fd))
                error = take_note(pid, epoll_fd, fd);
            if (error == -ENOENT || error == -EBADF)
                error = 0; /* closed, or taken out, by another thread meanwhile: not registered */
        }
    }
    (void)closedir(fds);
    if (error < 0)
        (void)mfd_epoll_restore(&scratch, -1, -1);
    return error;
}

/* In a child with an fd table of its own. The instances are moved above the program's number first, so
 * that putting the file there hits none of them. */
static int register_all(void *argument)
{
    struct mfd_registrations *registrations = argument;
    int above = registrations->at_fd + 1;
    int epoll_fds[REGISTRATIONS_MAX] = {0};

    registrations->error = 0;
    for (unsigned i = 0; i < registrations->n; i++)
        epoll_fds[i] = fcntl(registrations->found[i].epoll_fd, F_DUPFD, above);
    if (dup2(registrations->file_fd, registrations->at_fd) < 0)
        registrations->error = errno;
    for (unsigned i = 0; i < registrations->n && registrations->error == 0; i++)
        if (epoll_ctl(epoll_fds[i], EPOLL_CTL_ADD, registrations->at_fd,
                      &registrations->found[i].event) < 0)
            registrations->error = errno;
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

/* mfd_epoll_restore - register file_fd where the old file was found, as number at_fd
 * @file_fd: -1: only give up what was found
 * Return: 0 or -errno. */
int mfd_epoll_restore(struct mfd_registrations *found, int file_fd, int at_fd)
{
    int error = 0;

    if (found == NULL)
        return 0;
    found->file_fd = file_fd;
    found->at_fd = at_fd;
    if (file_fd >= 0 && found->n > 0)
        error = register_in_child(found);
    for (unsigned i = 0; i < found->n; i++)
        (void)close(found->found[i].epoll_fd);
    found->n = 0;
    return error;
}
