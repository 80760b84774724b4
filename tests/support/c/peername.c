/* peername.c - peername MODE HOST PORT [HOST PORT]: what getpeername() says, before, while and after
 *
 * blocking, nonblocking: one connection      reuse: the same socket, to the first and then to the second
 * The first HOST and PORT are printed "as asked", other addresses as they are. */
#include "say.h"

static struct address asked;

static void say_peer(int fd)
{
    struct sockaddr_storage peer = {0};
    socklen_t length = sizeof(peer);
    char host[INET6_ADDRSTRLEN] = "";

    if (getpeername(fd, (struct sockaddr *)&peer, &length) < 0) {
        say(-1, "peer");
        return;
    }
    if (length == asked.length && memcmp(&peer, &asked.storage, length) == 0)
        puts("peer: as asked");
    else if (peer.ss_family == AF_INET)
        printf("peer: %s:%d\n",
               inet_ntop(AF_INET, &((struct sockaddr_in *)&peer)->sin_addr, host, sizeof(host)),
               ntohs(((struct sockaddr_in *)&peer)->sin_port));
    else
        printf("peer: [%s]:%d\n",
               inet_ntop(AF_INET6, &((struct sockaddr_in6 *)&peer)->sin6_addr, host, sizeof(host)),
               ntohs(((struct sockaddr_in6 *)&peer)->sin6_port));
    fflush(stdout);
}

static void say_short(int fd, socklen_t room)
{
    unsigned char bytes[sizeof(struct sockaddr_storage)];
    socklen_t length = room;
    unsigned written = 0;

    memset(bytes, 0xee, sizeof(bytes));
    say(getpeername(fd, (struct sockaddr *)bytes, &length), "in %u bytes", room);
    for (unsigned i = 0; i < sizeof(bytes); i++)
        if (bytes[i] != 0xee)
            written = i + 1;
    printf("length %u, written up to %u\n", length, written);
}

static void *volatile nowhere = (void *)8;

static void say_odd(int fd)
{
    socklen_t length = sizeof(struct sockaddr_storage);

    say_short(fd, 0);
    say_short(fd, 2);
    say_short(fd, asked.length - 1);
    say_short(fd, asked.length);
    say_short(fd, 100);
    say(getpeername(fd, nowhere, &length), "to nowhere");
    say(getpeername(fd, (struct sockaddr *)&asked, nowhere), "without a length");
    length = (socklen_t)-1;
    say(getpeername(fd, nowhere, &length), "with a negative length");
    say(getpeername(-1, nowhere, &length), "of no fd");
    say(getpeername(STDIN_FILENO, nowhere, &length), "of no socket");
}

static int connect_to(int fd, const struct address *address)
{
    int result = dial(fd, address);

    if (result < 0 && errno == EINPROGRESS) {
        wait_for(fd, POLLOUT);
        errno = socket_error(fd);
        return errno == 0 ? 0 : -1;
    }
    return result;
}

int main(int argc, char **argv)
{
    const struct sockaddr nobody = {.sa_family = AF_UNSPEC};
    struct address second = {.length = sizeof(second.storage)};
    int fd;

    asked = address_of(argv[2], argv[3]);
    fd = tcp_socket(&asked, strcmp(argv[1], "nonblocking") == 0 ? SOCK_NONBLOCK : 0);
    if (argc > 5) {
        second = address_of(argv[4], argv[5]);
        sure("connect", connect_to(fd, &asked));
        say_peer(fd);
        say(connect(fd, &nobody, sizeof(nobody)), "disconnect");
        sure("connect", connect_to(fd, &second));
        say_peer(fd);
        return 0;
    }
    say(getpeername(fd, (struct sockaddr *)&second.storage, &second.length), "before");
    say(connect_to(fd, &asked), "connect");
    say_peer(fd);
    say_odd(fd);
    return 0;
}
