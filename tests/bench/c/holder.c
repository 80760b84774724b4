/* holder.c - a program that has many sockets open, and says how far it is
 *
 * Usage: holder N REPORT [ADDRESS PORT]
 *
 * Theory of operation: it makes N TCP sockets. With an address it connects each there; it is its own server
 * then, at 127.0.0.1:PORT, to which ADDRESS may lead by a detour. What it connects is never accepted and
 * waits in its server's queue, so that all N are open as long as it lives. To REPORT (a FIFO that somebody
 * reads) it writes a byte when it begins and one when all are open; then it waits to be ended. With its end
 * everything is reset: no TIME_WAIT.
 * Limits: net.core.somaxconn connections wait, and as many fds may be open; any error ends it. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define FDS_OF_OUR_OWN 16

_Noreturn static void fail(const char *what)
{
    fprintf(stderr, "holder: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void report(int fd)
{
    if (write(fd, "x", 1) != 1)
        fail("report");
}

static void allow_fds(rlim_t n)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        fail("getrlimit");
    if (limit.rlim_cur < n)
        limit.rlim_cur = n < limit.rlim_max ? n : limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        fail("setrlimit");
}

static void serve(struct sockaddr_in here, int n)
{
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
        bind(fd, (const struct sockaddr *)&here, sizeof(here)) < 0 || listen(fd, n) < 0)
        fail("listen");
}

static void open_one(const struct sockaddr_in *server)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        fail("socket");
    if (server->sin_port != 0 && connect(fd, (const struct sockaddr *)server, sizeof(*server)) < 0)
        fail("connect");
}

int main(int argc, char **argv)
{
    struct sockaddr_in server = {.sin_family = AF_INET};
    int report_fd;
    int n;

    if ((argc != 3 && argc != 5) ||
        (argc == 5 && inet_pton(AF_INET, argv[3], &server.sin_addr) != 1)) {
        fputs("usage: holder N REPORT [ADDRESS PORT]\n", stderr);
        return 2;
    }
    n = atoi(argv[1]);
    report_fd = open(argv[2], O_WRONLY | O_CLOEXEC);
    if (report_fd < 0)
        fail(argv[2]);
    report(report_fd);
    allow_fds((rlim_t)n + FDS_OF_OUR_OWN);
    if (argc == 5) {
        server.sin_port = htons((uint16_t)atoi(argv[4]));
        serve(server, n);
    }
    for (int i = 0; i < n; i++)
        open_one(&server);
    report(report_fd);
    for (;;)
        (void)pause();
}
