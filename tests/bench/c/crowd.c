/* crowd.c - many fds, many sockets, many processes, which stay until the program ends
 *
 * Many fds are eventfds that are registered in an epoll instance, as a busy server has them. What reading
 * the fdinfo of each costs is how an interceptor that replaces sockets would find the epoll instances that
 * hold them. Many processes are children that wait for our end, under the filter as we are. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "probe.h"

static int *fds;
static size_t n_fds;
static pid_t *children;
static size_t n_children;

static void allow_fds(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        fail("getrlimit");
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        fail("setrlimit");
}

void open_many(size_t n)
{
    int epoll_fd;

    allow_fds();
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    fds = calloc(n, sizeof(*fds));
    if (epoll_fd < 0 || fds == NULL)
        fail("epoll_create1");
    for (n_fds = 0; n_fds < n; n_fds++) {
        struct epoll_event event = {.events = EPOLLIN};

        fds[n_fds] = eventfd(0, EFD_CLOEXEC);
        if (fds[n_fds] < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fds[n_fds], &event) < 0)
            fail("eventfd");
    }
    puts("{}");
}

void scan_fdinfo(void)
{
    uint64_t begin = now_ns();

    for (size_t i = 0; i < n_fds; i++) {
        char path[48];
        char text[1024];
        int fd;

        (void)snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fds[i]);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || read(fd, text, sizeof(text)) < 0 || close(fd) < 0)
            fail(path);
    }
    printf("{\"scan_ns\": %llu}\n", (unsigned long long)(now_ns() - begin));
}

void hold_sockets(size_t n)
{
    allow_fds();
    for (size_t i = 0; i < n; i++)
        (void)open_connection();
    puts("{}");
}

void start_many(size_t n)
{
    children = calloc(n, sizeof(*children));
    if (children == NULL)
        fail("calloc");
    for (n_children = 0; n_children < n; n_children++) {
        pid_t child = fork();

        if (child < 0)
            fail("fork");
        if (child == 0) {
            (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
            for (;;)
                (void)pause();
        }
        children[n_children] = child;
    }
    puts("{}");
}

void end_crowd(void)
{
    for (size_t i = 0; i < n_children; i++)
        (void)kill(children[i], SIGKILL);
    for (size_t i = 0; i < n_children; i++)
        (void)waitpid(children[i], NULL, 0);
}
