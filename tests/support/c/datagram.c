/* datagram.c - datagram HOST PORT: one datagram by each call, and nothing else */
#include <sys/uio.h>

#include "say.h"

int main(int argc, char **argv)
{
    struct address address = address_of(argv[1], argv[2]);
    struct iovec part = {"x", 1};
    struct mmsghdr message = {.msg_hdr = {.msg_name = &address.storage,
                                          .msg_namelen = address.length,
                                          .msg_iov = &part,
                                          .msg_iovlen = 1}};
    int fd = sure("socket", socket(address.family, SOCK_DGRAM, 0));

    (void)argc;
    say((int)sendto(fd, "x", 1, 0, sockaddr_of(&address), address.length), "sendto");
    say((int)sendmsg(fd, &message.msg_hdr, 0), "sendmsg");
    say(sendmmsg(fd, &message, 1, 0), "sendmmsg");
    return 0;
}
