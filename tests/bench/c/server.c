/* server.c - what the measuring program connects to
 *
 * Usage: server [PATH [PORT]]
 * Listens on 127.0.0.1, on PORT or one that the kernel picks, and prints which; and on a unix socket at
 * PATH, unless that is "-"; until its standard input ends. If that is /dev/null, until it is signalled.
 * One thread, one epoll instance. The first byte that a client sends says what it wants:
 *
 *   'e'   every later byte comes back
 *   's'   later bytes are dropped; after the client's end of file one byte comes back
 *
 * A client that says nothing and resets the connection (every one that only measures connect()) is
 * dropped. The client closes first, with a reset, so neither side keeps a port in TIME_WAIT.
 * Limits: as many fds as the hard limit allows, and CLIENTS_MAX; one more client ends it, with a message. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CLIENTS_MAX 65536
#define BACKLOG 4096
#define EVENTS 64
#define ACCEPTS_AT_ONCE 64

static char wanted[CLIENTS_MAX]; /* by fd; 0: not said yet */

_Noreturn static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void watch(int epoll, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0 && !(fd == STDIN_FILENO && errno == EPERM))
        fail("server: epoll_ctl");
}

static int listen_somewhere(uint16_t port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
    socklen_t length = sizeof(address);
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
        bind(fd, (struct sockaddr *)&address, length) < 0 || listen(fd, BACKLOG) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) < 0)
        fail("server: listen");
    printf("%u\n", ntohs(address.sin_port));
    (void)fflush(stdout);
    return fd;
}

static int listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    errno = ENAMETOOLONG;
    if (strlen(path) >= sizeof(address.sun_path))
        fail(path);
    memcpy(address.sun_path, path, strlen(path));
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(fd, BACKLOG) < 0)
        fail(path);
    return fd;
}

static void allow_fds(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        fail("server: getrlimit");
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        fail("server: setrlimit");
}

static void accept_clients(int epoll, int listening)
{
    for (int i = 0; i < ACCEPTS_AT_ONCE; i++) {
        int one = 1;
        int fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd >= CLIENTS_MAX)
            errno = EMFILE;
        if (fd >= CLIENTS_MAX || (fd < 0 && (errno == EMFILE || errno == ENFILE)))
            fail("server: accept4");
        if (fd < 0)
            return;
        wanted[fd] = 0;
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        watch(epoll, fd);
    }
}

static void serve(int fd)
{
    static char bytes[1 << 18];
    ssize_t n = read(fd, bytes, sizeof(bytes));
    const char *said = bytes;

    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        if (n == 0 && wanted[fd] == 's')
            (void)!write(fd, "s", 1);
        (void)close(fd);
        return;
    }
    if (wanted[fd] == 0) {
        wanted[fd] = *said++;
        n--;
    }
    if (wanted[fd] == 'e' && n > 0 && write(fd, said, (size_t)n) != n)
        (void)close(fd);
}

int main(int argc, char **argv)
{
    struct epoll_event events[EVENTS];
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    int listening_unix = argc > 1 && strcmp(argv[1], "-") != 0 ? listen_at(argv[1]) : -1;
    int listening = listen_somewhere(argc > 2 ? (uint16_t)atoi(argv[2]) : 0);

    if (epoll < 0)
        fail("server: epoll");
    allow_fds();
    watch(epoll, listening);
    if (listening_unix >= 0)
        watch(epoll, listening_unix);
    watch(epoll, STDIN_FILENO);
    for (;;) {
        int n = epoll_wait(epoll, events, EVENTS, -1);

        for (int i = 0; i < n; i++) {
            if (events[i].data.fd == STDIN_FILENO)
                return 0;
            if (events[i].data.fd == listening || events[i].data.fd == listening_unix)
                accept_clients(epoll, events[i].data.fd);
            else
                serve(events[i].data.fd);
        }
    }
}
