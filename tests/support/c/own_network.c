/* own_network.c - own_network HOST PORT LISTEN_PORT: sockets in a network namespace of its own making
 *
 * Who may not make one (not root) makes a user namespace with it; "no namespace" where that is
 * forbidden. HOST:PORT has a server outside; HOST:LISTEN_PORT is bound inside. */
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>

#include "say.h"

static void raise_loopback(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int fd = sure("socket", socket(AF_INET, SOCK_DGRAM, 0));

    sure("SIOCSIFFLAGS", ioctl(fd, SIOCSIFFLAGS, &request));
    close(fd);
}

static void dial_new(const struct address *address, const char *step)
{
    int fd = tcp_socket(address, 0);

    say(dial(fd, address), "%s", step);
    close(fd);
}

int main(int argc, char **argv)
{
    struct address outside = address_of(argv[1], argv[2]);
    struct address inside = address_of(argv[1], argv[3]);
    socklen_t size = sizeof(int);
    const int on = 1;
    int accepting = -1;
    int fd;

    (void)argc;
    if (unshare(CLONE_NEWNET) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0) {
        puts("no namespace");
        return 0;
    }
    dial_new(&outside, "connect without loopback");
    raise_loopback();
    dial_new(&outside, "connect");
    fd = tcp_socket(&inside, 0);
    sure("SO_REUSEADDR", setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)));
    say(bind(fd, sockaddr_of(&inside), inside.length), "bind");
    sure("getsockopt", getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &accepting, &size));
    printf("listens before listen: %d\n", accepting);
    say(listen(fd, 1), "listen");
    dial_new(&inside, "connect inside");
    return 0;
}
