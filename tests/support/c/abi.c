/* abi.c - abi MODE HOST PORT: connect through a given entry of the kernel and print the greeting
 *
 * direct: socket(2), connect(2)     call: socketcall(2), where there is one (i386) */
#include <sys/syscall.h>

#include "say.h"

#define CALL_SOCKET 1
#define CALL_CONNECT 3

#ifdef SYS_socketcall
static long socket_call(int call, unsigned long a, unsigned long b, unsigned long c)
{
    unsigned long arguments[] = {a, b, c};

    return syscall(SYS_socketcall, call, arguments);
}

static int by_call(const struct address *address, int *ret_fd)
{
    *ret_fd = (int)socket_call(CALL_SOCKET, (unsigned long)address->family, SOCK_STREAM, 0);
    return (int)socket_call(CALL_CONNECT, (unsigned long)*ret_fd, (unsigned long)&address->storage,
                            address->length);
}
#else
static int by_call(const struct address *address, int *ret_fd)
{
    (void)address;
    *ret_fd = -1;
    errno = ENOSYS;
    return -1;
}
#endif

static int directly(const struct address *address, int *ret_fd)
{
    *ret_fd = (int)syscall(SYS_socket, address->family, SOCK_STREAM, 0);
    return (int)syscall(SYS_connect, *ret_fd, &address->storage, address->length);
}

int main(int argc, char **argv)
{
    struct address address = address_of(argv[2], argv[3]);
    int fd = -1;
    int result;

    (void)argc;
    if (strcmp(argv[1], "call") == 0)
        result = by_call(&address, &fd);
    else
        result = directly(&address, &fd);
    say(result, "connect");
    if (result == 0)
        say_rest(fd, "greeting");
    return 0;
}
