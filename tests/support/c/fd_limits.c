/* fd_limits.c - fd_limits MODE HOST PORT: sockets when fds are scarce, or have large numbers
 *
 * highest: the socket sits at the last number that RLIMIT_NOFILE allows, and is connected there
 * highest-bound: likewise; HOST:PORT is bound, listened on and asked by a client of its own
 * none-left: no fd is free any more: a socket is connected, another cannot be made
 * none-left-bound: likewise; one that was made before is bound and listened on
 * lowered: the limit is below the numbers that are in use */
#include <sys/resource.h>

#include "say.h"

static struct address address;

static int limit(void)
{
    struct rlimit all;

    sure("getrlimit", getrlimit(RLIMIT_NOFILE, &all));
    all.rlim_cur = all.rlim_max;
    sure("setrlimit", setrlimit(RLIMIT_NOFILE, &all));
    return (int)all.rlim_cur;
}

static int at_the_end(int flags)
{
    int fd = tcp_socket(&address, flags);
    int last = limit() - 1;

    sure("dup3", dup3(fd, last, O_CLOEXEC));
    close(fd);
    return last;
}

static void exhaust(void)
{
    while (dup(STDOUT_FILENO) >= 0)
        continue;
    printf("one more: %s\n", name_of(errno));
}

static void serve_oneself(int fd)
{
    const int on = 1;

    sure("SO_REUSEADDR", setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)));
    say(bind(fd, sockaddr_of(&address), address.length), "bind");
    say(listen(fd, 8), "listen");
    printf("descriptor flags: %d\n", fcntl(fd, F_GETFD));
}

static void highest(void)
{
    int fd = at_the_end(0);

    say(dial(fd, &address), "connect");
    printf("descriptor flags: %d\n", fcntl(fd, F_GETFD));
    say_rest(fd, "greeting");
    fd = at_the_end(SOCK_NONBLOCK);
    say(dial(fd, &address), "connect");
    say_rest(fd, "greeting");
}

static void accept_one(int fd)
{
    int client = tcp_socket(&address, 0);

    say(dial(client, &address), "connect");
    say(accept(fd, NULL, NULL), "accept");
}

static void highest_bound(void)
{
    int fd = at_the_end(0);

    serve_oneself(fd);
    accept_one(fd);
}

static void none_left(void)
{
    int blocking = tcp_socket(&address, 0);
    int other = tcp_socket(&address, SOCK_NONBLOCK);

    exhaust();
    say(socket(address.family, SOCK_STREAM, 0), "socket");
    say(socket(AF_INET6, SOCK_STREAM, 0), "socket v6");
    say(socket(AF_INET, SOCK_STREAM, 99), "socket of no protocol");
    say(dial(blocking, &address), "connect");
    say_rest(blocking, "greeting");
    say(dial(other, &address), "connect");
    say_rest(other, "greeting");
    close(other);
    other = socket(address.family, SOCK_STREAM, 0);
    say(other, "socket where one was closed");
    say(dial(other, &address), "connect");
}

static void none_left_bound(void)
{
    int fd = tcp_socket(&address, 0);
    int client = tcp_socket(&address, 0);

    exhaust();
    serve_oneself(fd);
    say(dial(client, &address), "connect");
    wait_for(fd, POLLIN);
    say(accept(fd, NULL, NULL), "accept");
}

static void lowered(void)
{
    struct rlimit none = {0};
    int fd = tcp_socket(&address, 0);

    sure("getrlimit", getrlimit(RLIMIT_NOFILE, &none));
    none.rlim_cur = (rlim_t)fd; /* poll(2) counts its array against it, too */
    sure("setrlimit", setrlimit(RLIMIT_NOFILE, &none));
    say(socket(address.family, SOCK_STREAM, 0), "socket");
    say(dial(fd, &address), "connect");
    say_rest(fd, "greeting");
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } modes[] = {
        {"highest", highest},     {"highest-bound", highest_bound},
        {"none-left", none_left}, {"none-left-bound", none_left_bound},
        {"lowered", lowered},
    };

    (void)argc;
    address = address_of(argv[2], argv[3]);
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
        if (strcmp(argv[1], modes[i].name) == 0) {
            modes[i].run();
            return 0;
        }
    return SET_UP_FAILED;
}
