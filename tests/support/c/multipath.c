/* multipath.c - multipath HOST PORT [nonblocking]: a client that asks for MPTCP; "no MPTCP" where there is none */
#include "say.h"

#define MPTCP 262        /* linux/in.h: IPPROTO_MPTCP */
#define SOL_OF_MPTCP 284 /* linux/socket.h */
#define INFO 1           /* linux/mptcp.h: MPTCP_INFO */

int main(int argc, char **argv)
{
    struct address address = address_of(argv[1], argv[2]);
    unsigned char info[256] = {0};
    socklen_t size = sizeof(info);
    int protocol = 0;
    int fd = socket(address.family, SOCK_STREAM | (argc > 3 ? SOCK_NONBLOCK : 0), MPTCP);

    if (fd < 0) {
        puts("no MPTCP");
        return 0;
    }
    say(dial(fd, &address), "connect");
    wait_for(fd, POLLOUT);
    say(getsockopt(fd, SOL_OF_MPTCP, INFO, info, &size), "MPTCP_INFO"); /* fails after a fallback */
    /* what no connection of TCP takes, and what MPTCP itself does not know */
    say(setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &(int){0}, sizeof(int)), "TCP_KEEPINTVL");
    say(setsockopt(fd, IPPROTO_IP, IP_RECVERR, &(int){1}, sizeof(int)), "IP_RECVERR");
    size = sizeof(protocol);
    sure("SO_PROTOCOL", getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size));
    printf("protocol: %d\n", protocol);
    say_rest(fd, "greeting");
    return 0;
}
