/* closing.c - closing MODE HOST PORT: what close() means to others, at once
 *
 * port: a bound or listening socket that was closed frees its port
 * ghost: sockets closed while in an epoll instance stop being reported
 * eof: connects, closes and says so; then waits for a line */
#include <sys/epoll.h>
#include <time.h>

#include "say.h"

#define N_GHOSTS 8
#define ROUNDS_OF_SILENCE 50
#define PAUSE_MS 10

static void port(const struct address *ignored)
{
    struct address local = address_of("127.0.0.1", "0");
    socklen_t length = local.length;
    int first = tcp_socket(&local, 0);
    int second = tcp_socket(&local, 0);

    (void)ignored;
    say(bind(first, sockaddr_of(&local), local.length), "bind");
    sure("getsockname", getsockname(first, (void *)&local.storage, &length));
    say(bind(second, sockaddr_of(&local), local.length), "bind the same");
    close(first);
    say(bind(second, sockaddr_of(&local), local.length), "bind when closed");
    say(listen(second, 1), "listen");
    first = tcp_socket(&local, 0);
    say(dial(first, &local), "connect to it");
    close(first);
    close(second);
    first = tcp_socket(&local, 0);
    say(dial(first, &local), "connect when closed");
}

static int n_events(int epoll, int timeout_ms)
{
    struct epoll_event events[N_GHOSTS];

    return sure("epoll_wait", epoll_wait(epoll, events, N_GHOSTS, timeout_ms));
}

static void ghost(const struct address *address)
{
    int epoll = sure("epoll_create1", epoll_create1(0));
    int rounds = 0;

    for (int i = 0; i < N_GHOSTS; i++) {
        struct epoll_event event = {.events = EPOLLIN | (i % 2 ? EPOLLET : 0u)};
        int fd = tcp_socket(address, SOCK_NONBLOCK);

        sure("epoll_ctl", epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
        close(fd);
    }
    while (n_events(epoll, 0) > 0 && rounds++ < PATIENCE_MS / PAUSE_MS)
        usleep(PAUSE_MS * 1000);
    printf("quiet: %s\n", n_events(epoll, 0) == 0 ? "yes" : "no");
    for (int i = 0; i < ROUNDS_OF_SILENCE; i++)
        if (n_events(epoll, 1) != 0) {
            puts("quiet for good: no");
            return;
        }
    puts("quiet for good: yes");
}

static void eof(const struct address *address)
{
    int fd = tcp_socket(address, 0);

    say(dial(fd, address), "connect");
    close(fd);
    puts("closed");
    fflush(stdout);
    wait_line();
}

int main(int argc, char **argv)
{
    struct address address;

    (void)argc;
    address = address_of(argv[2], argv[3]);
    if (strcmp(argv[1], "port") == 0)
        port(&address);
    else if (strcmp(argv[1], "ghost") == 0)
        ghost(&address);
    else
        eof(&address);
    return 0;
}
