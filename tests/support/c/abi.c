/* abi.c - abi MODE HOST PORT: connect through a given entry of the kernel and print the greeting
 *
 * direct: socket(2), connect(2)     call: socketcall(2), where there is one (i386)
 * gate, gate-call: the same two through int 0x80, the i386 entry, from an x86-64 program */
#include <sys/mman.h>
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

#ifdef __x86_64__
#define I386_SOCKETCALL 102 /* asm/unistd_32.h */
#define I386_SOCKET 359
#define I386_CONNECT 362

static int enter_gate(int nr, unsigned a, unsigned b, unsigned c)
{
    int result;

    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(nr), "b"(a), "c"(b), "d"(c)
                     : "memory", "r8", "r9", "r10", "r11");
    if (result >= 0)
        return result;
    errno = -result;
    return -1;
}

static unsigned low(const void *pointer)
{
    return (unsigned)(uintptr_t)pointer;
}

/* What the calls read lies where 32 bits can name it. */
static int by_gate(const struct address *address, int use_call, int *ret_fd)
{
    struct {
        struct address address;
        unsigned arguments[3];
    } *there = mmap(NULL, sizeof(*there), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);

    if (there == MAP_FAILED)
        sure("mmap", -1);
    there->address = *address;
    *ret_fd = enter_gate(I386_SOCKET, (unsigned)address->family, SOCK_STREAM, 0);
    if (!use_call)
        return enter_gate(I386_CONNECT, (unsigned)*ret_fd, low(&there->address.storage),
                          address->length);
    there->arguments[0] = (unsigned)*ret_fd;
    there->arguments[1] = low(&there->address.storage);
    there->arguments[2] = address->length;
    return enter_gate(I386_SOCKETCALL, CALL_CONNECT, low(there->arguments), 0);
}
#else
static int by_gate(const struct address *address, int use_call, int *ret_fd)
{
    (void)use_call;
    return by_call(address, ret_fd);
}
#endif

int main(int argc, char **argv)
{
    struct address address = address_of(argv[2], argv[3]);
    int fd = -1;
    int result;

    (void)argc;
    if (strcmp(argv[1], "call") == 0)
        result = by_call(&address, &fd);
    else if (strncmp(argv[1], "gate", 4) == 0)
        result = by_gate(&address, strcmp(argv[1], "gate-call") == 0, &fd);
    else
        result = directly(&address, &fd);
    say(result, "connect");
    if (result == 0)
        say_rest(fd, "greeting");
    return 0;
}
