/* send_open.c - send_open MODE HOST PORT [PROTOCOL]: TCP Fast Open, by send calls that connect
 *
 * blocking, nonblocking, dontwait: by sendto()     message: by sendmsg()     option: TCP_FASTOPEN_CONNECT
 * Then it tries the same once more, ends its stream, and reads what comes back. */
#include "say.h"

static ssize_t open_fast(const char *mode, int fd, const struct address *address)
{
    struct iovec parts[] = {{"first", 5}, {" second", 7}};
    struct msghdr message = {.msg_name = (void *)(uintptr_t)&address->storage,
                             .msg_namelen = address->length,
                             .msg_iov = parts,
                             .msg_iovlen = 2};

    if (strcmp(mode, "message") == 0)
        return sendmsg(fd, &message, MSG_FASTOPEN);
    if (strcmp(mode, "option") == 0) {
        sure("TCP_FASTOPEN_CONNECT",
             setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &(int){1}, sizeof(int)));
        say(dial(fd, address), "connect");
        return write(fd, "first", 5);
    }
    return sendto(fd, "first", 5, MSG_FASTOPEN | (strcmp(mode, "dontwait") == 0 ? MSG_DONTWAIT : 0),
                  sockaddr_of(address), address->length);
}

int main(int argc, char **argv)
{
    const char *mode = argv[1];
    struct address address = address_of(argv[2], argv[3]);
    int type = SOCK_STREAM | (strcmp(mode, "nonblocking") == 0 ? SOCK_NONBLOCK : 0);
    int fd = sure("socket", socket(address.family, type, argc > 4 ? atoi(argv[4]) : 0));
    ssize_t n = open_fast(mode, fd, &address);

    if (n < 0)
        say(-1, "open");
    else
        printf("open: %zd\n", n);
    if (n < 0 && errno != EINPROGRESS)
        return 0;
    wait_for(fd, POLLOUT);
    printf("error: %s\n", name_of(socket_error(fd)));
    say((int)sendto(fd, "again", 5, MSG_FASTOPEN | MSG_NOSIGNAL, sockaddr_of(&address),
                    address.length),
        "open again");
    say(shutdown(fd, SHUT_WR), "end");
    say_rest(fd, "sent back");
    return 0;
}
