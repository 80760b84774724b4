/* watch.c - has anybody an open file still, when we hold it no longer ourselves?
 *
 * Theory of operation: an epoll instance knows a file without keeping it open, and forgets it when its last
 * holder, in whatever process, table or message, is gone. So an instance of our own is given the file, and asked
 * later whether it has it (kcmp, KCMP_EPOLL_TFD): that holds for dups, for children, for threads that have
 * ended, for what is under way in a message.
 * A file that is closed inside a system call is gone when that call returns, not before.
 * Limits: one fd each. Without kcmp(2) every file is still there.
 * Source: epoll(7), kcmp(2), fs/file_table.c (__fput). */
#include <sys/epoll.h>
#include <sys/syscall.h>

#include "kernel.h"
#include "meshfd.h"

/* mfd_watch_open - from now on watch the file that we have at fd
 * @ret_watch: given to mfd_watch_close()
 * Return: 0; -EPERM: epoll cannot watch that; -EMFILE; another -errno. */
int mfd_watch_open(int fd, struct mfd_watch *ret_watch)
{
    struct epoll_event event = {0};
    MFD_CLOSE int epoll_fd = epoll_create1(EPOLL_CLOEXEC);

    if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
        return -errno;
    *ret_watch = (struct mfd_watch){.epoll_fd = mfd_take_fd(&epoll_fd), .number = fd};
    return 0;
}

/* How a file of a program is to the one that is watched. Return: 0: the same; -ENOENT: nobody has that any more. */
static int order(const struct mfd_watch *watch, pid_t pid, int fd)
{
    struct kcmp_epoll_slot slot = {.efd = (uint32_t)watch->epoll_fd,
                                   .tfd = (uint32_t)watch->number};
    long order = syscall(SYS_kcmp, pid, getpid(), KCMP_EPOLL_TFD, (long)fd, &slot);

    return order < 0 ? -errno : (int)order;
}

/* mfd_watch_is_open - is it somebody's still? */
bool mfd_watch_is_open(const struct mfd_watch *watch)
{
    return order(watch, getpid(), watch->epoll_fd) != -ENOENT;
}

/* mfd_watch_is_at - is it what this program has at fd? */
bool mfd_watch_is_at(const struct mfd_watch *watch, pid_t pid, int fd)
{
    return order(watch, pid, fd) == 0;
}

void mfd_watch_close(struct mfd_watch *watch)
{
    mfd_close_at(&watch->epoll_fd);
}
