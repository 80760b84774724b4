/* handover.c - handover HOST PORT FLAGS: a daemon's start, seen closely
 *
 * FLAGS: letters; n: O_NONBLOCK, c: O_CLOEXEC, e: in an epoll instance before bind, o: options set
 * before bind. Serves one client, who has to speak first, with "hello\n". */
#include <sys/epoll.h>

#include "say.h"

#define COOKIE 4711

static void say_option(int fd, int level, int name, const char *what)
{
    int value = 0;
    socklen_t length = sizeof(value);

    sure(what, getsockopt(fd, level, name, &value, &length));
    printf("%s: %d\n", what, value);
}

static void set_option(int fd, int level, int name, int value)
{
    sure("setsockopt", setsockopt(fd, level, name, &value, sizeof(value)));
}

static void say_name(int fd, const char *step)
{
    struct sockaddr_storage name;
    socklen_t length = sizeof(name);
    char text[INET6_ADDRSTRLEN] = "?";
    int port = 0;

    sure("getsockname", getsockname(fd, (void *)&name, &length));
    if (name.ss_family == AF_INET) {
        inet_ntop(AF_INET, &((struct sockaddr_in *)&name)->sin_addr, text, sizeof(text));
        port = ((struct sockaddr_in *)&name)->sin_port;
    } else {
        inet_ntop(AF_INET6, &((struct sockaddr_in6 *)&name)->sin6_addr, text, sizeof(text));
        port = ((struct sockaddr_in6 *)&name)->sin6_port;
    }
    printf("%s: %s %d\n", step, text, ntohs((uint16_t)port));
}

static int enter_epoll(int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data = {.u64 = COOKIE}};
    int epoll = sure("epoll_create1", epoll_create1(EPOLL_CLOEXEC));

    sure("epoll_ctl", epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
    return epoll;
}

/* A fresh socket reports a hang-up; only what comes with EPOLLIN is a client. */
static void wait_in_epoll(int epoll)
{
    struct epoll_event event = {0};

    do
        if (epoll_wait(epoll, &event, 1, PATIENCE_MS) != 1)
            sure("no event", -1);
    while ((event.events & EPOLLIN) == 0);
    printf("event: %s\n", event.data.u64 == COOKIE ? "ours" : "strange");
}

static int make(const struct address *address, const char *flags)
{
    int fd = tcp_socket(address, (strchr(flags, 'n') ? SOCK_NONBLOCK : 0) |
                                     (strchr(flags, 'c') ? SOCK_CLOEXEC : 0));

    set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (strchr(flags, 'o')) {
        set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
        set_option(fd, SOL_SOCKET, SO_RCVBUF, 65536);
        set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
        set_option(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, 3);
        set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 77);
    }
    return fd;
}

int main(int argc, char **argv)
{
    struct address address = address_of(argv[1], argv[2]);
    const char *flags = argc > 3 ? argv[3] : "";
    int fd = make(&address, flags);
    int epoll = strchr(flags, 'e') ? enter_epoll(fd) : -1;
    int client;

    printf("bind: %d\n", bind(fd, sockaddr_of(&address), address.length));
    say_name(fd, "name");
    printf("status flags: %#o\n", sure("F_GETFL", fcntl(fd, F_GETFL)));
    printf("descriptor flags: %d\n", sure("F_GETFD", fcntl(fd, F_GETFD)));
    say_option(fd, SOL_SOCKET, SO_REUSEADDR, "SO_REUSEADDR");
    say_option(fd, SOL_SOCKET, SO_KEEPALIVE, "SO_KEEPALIVE");
    say_option(fd, SOL_SOCKET, SO_RCVBUF, "SO_RCVBUF");
    say_option(fd, IPPROTO_TCP, TCP_NODELAY, "TCP_NODELAY");
    say_option(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, "TCP_DEFER_ACCEPT");
    say_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, "TCP_KEEPIDLE");
    say(listen(fd, 16), "listen");
    say_option(fd, SOL_SOCKET, SO_ACCEPTCONN, "SO_ACCEPTCONN");
    fflush(stdout);
    if (epoll >= 0)
        wait_in_epoll(epoll);
    else
        wait_for(fd, POLLIN);
    client = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    say(client, "accept");
    if (client >= 0) {
        char question;

        sure("read", (int)read(client, &question, 1));
        sure("write", (int)write(client, "hello\n", 6));
    }
    return 0;
}
