/* event_loop.c - event_loop MODE HOST PORT: fetch "/" over a non-blocking socket
 *
 * level, edge: added to epoll before connect, never touched again      select, poll: as named
 * Prints the answer's first and last line. */
#include <sys/epoll.h>
#include <sys/select.h>

#include "say.h"

#define COOKIE 77

static int epoll = -1;

static int ready_by_epoll(int fd, short wanted)
{
    struct epoll_event event = {0};

    (void)fd;
    (void)wanted;
    if (epoll_wait(epoll, &event, 1, PATIENCE_MS) != 1 || event.data.u64 != COOKIE)
        sure("event", -1);
    return (event.events & EPOLLIN ? POLLIN : 0) | (event.events & EPOLLOUT ? POLLOUT : 0);
}

static int ready_by_select(int fd, short wanted)
{
    struct timeval patience = {.tv_sec = PATIENCE_MS / 1000};
    fd_set in, out;

    FD_ZERO(&in);
    FD_ZERO(&out);
    FD_SET(fd, wanted == POLLIN ? &in : &out);
    if (select(fd + 1, &in, &out, NULL, &patience) != 1)
        sure("select", -1);
    return (FD_ISSET(fd, &in) ? POLLIN : 0) | (FD_ISSET(fd, &out) ? POLLOUT : 0);
}

static int (*ready)(int fd, short wanted);

static void until(int fd, short wanted)
{
    while ((ready(fd, wanted) & wanted) == 0)
        continue;
}

static void add(int fd, uint32_t how)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | how, .data = {.u64 = COOKIE}};

    epoll = sure("epoll_create1", epoll_create1(EPOLL_CLOEXEC));
    sure("epoll_ctl", epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
    ready = ready_by_epoll;
}

/* Read until it would block, as edge mode asks for; wait, go on until the end. */
static size_t read_all(int fd, char *text, size_t size)
{
    size_t n = 0;
    ssize_t got;

    for (;;) {
        got = read(fd, text + n, size - 1 - n);
        if (got == 0)
            break;
        if (got > 0)
            n += (size_t)got;
        else if (errno == EAGAIN)
            until(fd, POLLIN);
        else
            sure("read", -1);
    }
    text[n] = '\0';
    return n;
}

int main(int argc, char **argv)
{
    static const char request[] = "GET / HTTP/1.0\r\nHost: test\r\n\r\n";
    struct address address = address_of(argv[2], argv[3]);
    int fd = tcp_socket(&address, SOCK_NONBLOCK);
    char text[4096];
    size_t n;

    (void)argc;
    ready = strcmp(argv[1], "select") == 0 ? ready_by_select : wait_for;
    if (strcmp(argv[1], "level") == 0)
        add(fd, 0);
    if (strcmp(argv[1], "edge") == 0)
        add(fd, EPOLLET);
    if (dial(fd, &address) < 0 && errno != EINPROGRESS)
        sure("connect", -1);
    if (ready == ready_by_epoll)
        while (socket_error(fd) == 0 && send(fd, "", 0, MSG_NOSIGNAL) < 0)
            until(fd, POLLOUT);
    else
        until(fd, POLLOUT);
    printf("SO_ERROR: %s\n", name_of(socket_error(fd)));
    sure("write", (int)write(fd, request, sizeof(request) - 1));
    n = read_all(fd, text, sizeof(text));
    printf("status: %.*s\n", (int)strcspn(text, "\r\n"), text);
    while (n > 0 && text[n - 1] == '\n')
        text[--n] = '\0';
    printf("body: %s\n", strrchr(text, '\n') == NULL ? "" : strrchr(text, '\n') + 1);
    return 0;
}
