/* moved.c - moved HOST PORT INNER_PORT: sockets from before and after the move to another network
 *
 * Who may not make a network namespace (not root) makes a user namespace with it; "no namespace" where
 * that is forbidden. Inside, 127.0.0.1:INNER_PORT says "inner". */
#include <net/if.h>
#include <pthread.h>
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

static void *greet(void *argument)
{
    int listening = *(int *)argument;

    for (;;) {
        int fd = sure("accept", accept(listening, NULL, NULL));

        sure("write", (int)write(fd, "inner\n", 6));
        close(fd);
    }
    return NULL;
}

static void connect_one(int fd, const struct address *address, const char *which)
{
    char step[64];

    say(dial(fd, address), "connect %s", which);
    snprintf(step, sizeof(step), "greeting of %s", which);
    say_rest(fd, step);
}

int main(int argc, char **argv)
{
    struct address address = address_of(argv[1], argv[2]);
    struct address inner = address_of("127.0.0.1", argv[3]);
    int before = tcp_socket(&address, 0);
    int idle = tcp_socket(&address, SOCK_NONBLOCK);
    pthread_t thread;
    int listening;

    (void)argc;
    if (unshare(CLONE_NEWNET) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0) {
        puts("no namespace");
        return 0;
    }
    raise_loopback();
    listening = tcp_socket(&inner, 0);
    sure("bind", bind(listening, sockaddr_of(&inner), inner.length));
    sure("listen", listen(listening, 8));
    sure("pthread_create", -pthread_create(&thread, NULL, greet, &listening));
    connect_one(tcp_socket(&address, 0), &address, "one made here");
    connect_one(before, &address, "one made before");
    connect_one(idle, &address, "one made before, not blocking");
    connect_one(tcp_socket(&address, SOCK_NONBLOCK), &address, "one made here, not blocking");
    return 0;
}
