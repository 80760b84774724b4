/* ordinary.c - ordinary: sockets that are nobody's business, and what happens to them
 *
 * UDP, unix, netlink and TCP between two sockets of this process. The transcript must be the same
 * whoever watches. */
#include <linux/netlink.h>
#include <sys/un.h>

#include "say.h"

static int bound(int family, int type, struct address *ret_address)
{
    int fd;

    *ret_address = address_of(family == AF_INET ? "127.0.0.1" : "::1", "0");
    fd = sure("socket", socket(family, type, 0));
    say(bind(fd, sockaddr_of(ret_address), ret_address->length), "bind");
    sure("getsockname", getsockname(fd, (void *)&ret_address->storage, &ret_address->length));
    return fd;
}

static void datagrams(int family)
{
    struct address address;
    int server = bound(family, SOCK_DGRAM, &address);
    int fd = sure("socket", socket(family, SOCK_DGRAM, 0));
    char text[8] = "";

    say(dial(fd, &address), "connect udp");
    say((int)send(fd, "word", 5, 0), "send");
    say((int)recv(server, text, sizeof(text), 0), "receive");
    say((int)sendto(fd, "more", 5, 0, sockaddr_of(&address), address.length), "sendto");
    say((int)recv(server, text, sizeof(text), 0), "receive");
    printf("text: %s\n", text);
    close(fd);
    close(server);
}

static void streams(int family)
{
    struct address address;
    int server = bound(family, SOCK_STREAM, &address);
    int fd = sure("socket", socket(family, SOCK_STREAM, 0));
    int error;

    say(dial(fd, &address), "connect before listen");
    say(listen(server, 1), "listen");
    close(fd);
    fd = sure("socket", socket(family, SOCK_STREAM, 0));
    say(dial(fd, &address), "connect");
    error = accept(server, NULL, NULL);
    say(error, "accept");
    say((int)send(fd, "word", 4, 0), "send");
    close(error);
    close(fd);
    close(server);
}

static void locals(void)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    socklen_t length = sizeof(name);
    int server = sure("socket", socket(AF_UNIX, SOCK_STREAM, 0));
    int fd = sure("socket", socket(AF_UNIX, SOCK_STREAM, 0));
    int netlink = sure("socket", socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE));
    int pair[2];

    say(bind(server, (void *)&name, sizeof(sa_family_t)), "bind unix"); /* the kernel names it */
    sure("getsockname", getsockname(server, (void *)&name, &length));
    say(listen(server, 1), "listen unix");
    say(connect(fd, (void *)&name, length), "connect unix");
    say(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
    say(socketpair(AF_INET, SOCK_STREAM, 0, pair), "socketpair of inet");
    say(bind(netlink, (void *)&kernel, sizeof(kernel)), "bind netlink");
    say(connect(netlink, (void *)&kernel, sizeof(kernel)), "connect netlink");
}

int main(void)
{
    datagrams(AF_INET);
    datagrams(AF_INET6);
    streams(AF_INET);
    streams(AF_INET6);
    locals();
    return 0;
}
