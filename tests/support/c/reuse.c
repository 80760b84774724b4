/* reuse.c - reuse MODE HOST PORT HOST PORT: a socket that is connected again, elsewhere
 *
 * connected: to the first, disconnected (AF_UNSPEC), to the second, and so on once more
 * nonblocking: the same, without blocking
 * bound: the same on a socket that is bound to 127.0.0.2, whose address is told each time
 * unfinished: the first does not answer; disconnected meanwhile, then to the second
 * listening: a listening socket is disconnected, then to the second */
#include <sys/epoll.h>

#include "say.h"

#define DATA 0x1234567812345678u

static struct address first, second;

static void disconnect(int fd)
{
    struct sockaddr unspecified = {.sa_family = AF_UNSPEC};

    say(connect(fd, &unspecified, sizeof(unspecified)), "disconnect");
}

static void say_name(int fd)
{
    struct sockaddr_in name;
    socklen_t length = sizeof(name);
    char text[INET_ADDRSTRLEN];

    sure("getsockname", getsockname(fd, (void *)&name, &length));
    printf("name: %s\n", inet_ntop(AF_INET, &name.sin_addr, text, sizeof(text)));
}

static void say_peer(int fd)
{
    struct address peer;
    socklen_t length = sizeof(peer.storage);

    say(getpeername(fd, (void *)&peer.storage, &length), "peer");
}

static void greet(int fd, const struct address *address)
{
    say(dial(fd, address), "connect");
    wait_for(fd, POLLOUT);
    say_name(fd);
    say_rest(fd, "greeting");
}

static void again_and_again(int fd)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data = {.u64 = DATA}};
    int epoll = sure("epoll_create1", epoll_create1(0));

    sure("epoll_ctl", epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
    for (int i = 0; i < 2; i++) {
        greet(fd, &first);
        disconnect(fd);
        say_peer(fd);
        say_name(fd);
        greet(fd, &second);
        disconnect(fd);
    }
    event.data.u64 = 0;
    say(epoll_wait(epoll, &event, 1, PATIENCE_MS), "event");
    printf("data: %s\n", event.data.u64 == DATA ? "ours" : "strange");
}

static void connected(void)
{
    again_and_again(tcp_socket(&first, 0));
}

static void nonblocking(void)
{
    again_and_again(tcp_socket(&first, SOCK_NONBLOCK));
}

static void bound(void)
{
    struct address local = address_of("127.0.0.2", "0");
    int fd = tcp_socket(&first, 0);

    say(bind(fd, sockaddr_of(&local), local.length), "bind");
    again_and_again(fd);
}

static void unfinished(void)
{
    int fd = tcp_socket(&first, SOCK_NONBLOCK);

    say(dial(fd, &first), "connect");
    say(dial(fd, &second), "connect meanwhile");
    disconnect(fd);
    greet(fd, &second);
}

static void listening(void)
{
    int fd = tcp_socket(&first, 0);

    say(listen(fd, 1), "listen");
    say(dial(fd, &second), "connect");
    disconnect(fd);
    greet(fd, &second);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } modes[] = {
        {"connected", connected},   {"nonblocking", nonblocking}, {"bound", bound},
        {"unfinished", unfinished}, {"listening", listening},
    };

    (void)argc;
    first = address_of(argv[2], argv[3]);
    second = address_of(argv[4], argv[5]);
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
        if (strcmp(argv[1], modes[i].name) == 0) {
            modes[i].run();
            return 0;
        }
    return SET_UP_FAILED;
}
