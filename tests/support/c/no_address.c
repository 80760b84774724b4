/* no_address.c - no_address HOST PORT FLAGS: sends whose address is NULL, or nowhere, and has a length
 *
 * FLAGS is 0 for UDP, or MSG_FASTOPEN's number for TCP. Where the program may have memory at NULL (CAP_SYS_RAWIO),
 * the address of HOST and PORT is there the second time, and is none all the same. */
#include <sys/mman.h>

#include "say.h"

#define PAGE 4096

static struct address server;
static char *volatile nowhere = (char *)8; /* in page 0 */
static char *volatile null;
static int flags;

static int new_socket(void)
{
    return sure("socket", socket(server.family, flags == 0 ? SOCK_DGRAM : SOCK_STREAM, 0));
}

static void say_peer(int fd)
{
    struct sockaddr_storage peer;
    socklen_t length = sizeof(peer);

    say(getpeername(fd, (struct sockaddr *)&peer, &length), "peer");
    close(fd);
}

static void send_to(const char *step, const void *address, socklen_t length)
{
    int fd = new_socket();

    say((int)sendto(fd, "x", 1, flags | MSG_NOSIGNAL, address, length), "%s", step);
    say_peer(fd);
}

static void send_message_to(const char *step, void *address, socklen_t length)
{
    struct iovec part = {"x", 1};
    struct msghdr message = {
        .msg_name = address, .msg_namelen = length, .msg_iov = &part, .msg_iovlen = 1};
    struct mmsghdr many = {.msg_hdr = message};
    int fd = new_socket();

    say((int)sendmsg(fd, &message, flags | MSG_NOSIGNAL), "%s, as a message", step);
    say_peer(fd);
    fd = new_socket();
    say(sendmmsg(fd, &many, 1, flags | MSG_NOSIGNAL), "%s, as one of many", step);
    say_peer(fd);
}

static void send_all(void)
{
    send_to("null", null, server.length);
    send_to("null of no length", null, 0);
    send_to("null of a negative length", null, (socklen_t)-1);
    send_message_to("null", null, server.length);
    send_message_to("null of a negative length", null, (socklen_t)-1);
}

int main(int argc, char **argv)
{
    (void)argc;
    server = address_of(argv[1], argv[2]);
    flags = atoi(argv[3]);
    send_all();
    send_to("nowhere", nowhere, server.length);
    send_to("nowhere of no length", nowhere, 0);
    send_message_to("nowhere", nowhere, server.length);
    send_message_to("nowhere of no length", nowhere, 0);
    if (mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
        MAP_FAILED) {
        say(-1, "memory at NULL");
        return 0;
    }
    say(0, "memory at NULL");
    memcpy(null, &server.storage, server.length);
    send_all();
    return 0;
}
