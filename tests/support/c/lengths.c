/* lengths.c - lengths SCENARIO HOST PORT: sizes, counts and times that no program means, and what becomes of them
 *
 * The server answers each datagram with "NAME:" and what it got. */
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>

#include "say.h"

#define PAGE 4096

static struct address server;
static char *volatile nowhere = (char *)8;      /* no program has that page */
static char *volatile not_ours = (char *)-PAGE; /* the kernel's */
static const size_t most = (size_t)-1 / 2;      /* SSIZE_MAX */
static const size_t more_than_int = (size_t)0x7fffffff + 1;

static int udp_socket(void)
{
    return sure("socket", socket(server.family, SOCK_DGRAM, 0));
}

static void send_plainly(int fd, const char *step, const void *from, size_t size)
{
    say_count(step, sendto(fd, from, size, 0, sockaddr_of(&server), server.length));
}

static void send_message(int fd, const char *step, struct iovec *parts, size_t n_parts)
{
    struct msghdr message = {.msg_name = &server.storage,
                             .msg_namelen = server.length,
                             .msg_iov = parts,
                             .msg_iovlen = n_parts};

    say_count(step, sendmsg(fd, &message, 0));
}

static void send_with_control(int fd, const char *step, void *control, size_t size)
{
    struct iovec part = {"x", 1};
    struct msghdr message = {.msg_name = &server.storage,
                             .msg_namelen = server.length,
                             .msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = size};

    say_count(step, sendmsg(fd, &message, 0));
}

static void send_all(void)
{
    int fd = udp_socket();
    static char text[] = "text"; /* not on the stack, which ends where the kernel's half begins */
    struct iovec parts[2] = {{text, 4}, {text, 4}};
    struct msghdr wrong = {.msg_name = nowhere, .msg_namelen = server.length, .msg_iov = parts};

    send_plainly(fd, "all of memory", text, (size_t)-1);
    send_plainly(fd, "half of it", text, most);
    send_plainly(fd, "more than an int", text, more_than_int);
    send_plainly(fd, "more than a datagram, from nowhere", nowhere, 70000);
    send_plainly(fd, "more than a datagram, not ours", not_ours, 70000);
    send_plainly(fd, "one byte, not ours", not_ours, 1);
    send_plainly(fd, "nothing, not ours", not_ours, 0);
    send_plainly(fd, "nothing, from nowhere", nowhere, 0);
    parts[0].iov_len = (size_t)-1;
    send_message(fd, "a part of all memory", parts, 1);
    send_message(fd, "and another", parts, 2);
    parts[0].iov_len = most;
    send_message(fd, "a part of half of it", parts, 1);
    parts[1].iov_len = most;
    send_message(fd, "two halves", parts, 2);
    parts[1].iov_len = (size_t)-1;
    send_message(fd, "half and all", parts, 2);
    parts[0] = (struct iovec){not_ours, 0};
    parts[1] = (struct iovec){text, 4};
    send_message(fd, "nothing that is not ours, and text", parts, 2);
    parts[0] = (struct iovec){not_ours, 1};
    parts[1].iov_len = (size_t)-1;
    send_message(fd, "not ours, and all of memory", parts, 2);
    parts[1].iov_len = 4;
    send_message(fd, "too many parts", parts, 1025);
    send_message(fd, "all the parts there are", parts, (size_t)-1);
    wrong.msg_iovlen = 1025;
    say_count("to nowhere, too many parts", sendmsg(fd, &wrong, 0));
    wrong.msg_namelen = (socklen_t)-1;
    say_count("to nowhere, of a negative length", sendmsg(fd, &wrong, 0));
    wrong.msg_name = NULL;
    wrong.msg_iovlen = 0;
    say_count("to nobody, of a negative length", sendmsg(fd, &wrong, 0));
    send_with_control(fd, "control of no bytes", text, 0);
    send_with_control(fd, "control that is not there", NULL, 32);
    send_with_control(fd, "a little of it", NULL, 1);
    send_with_control(fd, "control from nowhere", nowhere, 32);
    send_with_control(fd, "control of more than an int", text, more_than_int);
    send_with_control(fd, "control of all memory", text, (size_t)-1);
    send_with_control(fd, "more than an int that is not there", NULL, more_than_int);
    parts[0] = (struct iovec){text, (size_t)-1};
    wrong = (struct msghdr){.msg_name = &server.storage,
                            .msg_namelen = server.length,
                            .msg_iov = parts,
                            .msg_iovlen = 1,
                            .msg_control = nowhere,
                            .msg_controllen = more_than_int};
    say_count("too much of everything", sendmsg(fd, &wrong, 0));
    send_plainly(fd, "still", text, 4);
    wait_for(fd, POLLIN);
    say_count("answered", recv(fd, text, 1, MSG_TRUNC));
}

/* Have the server send a datagram, and wait for it. */
static void have(int fd)
{
    send_plainly(fd, "send", "12345", 5);
    wait_for(fd, POLLIN);
}

static void receive_message(int fd, const char *step, struct iovec *parts, size_t n_parts,
                            void *control, size_t control_size)
{
    struct sockaddr_storage source;
    struct msghdr message = {.msg_name = &source,
                             .msg_namelen = sizeof(source),
                             .msg_iov = parts,
                             .msg_iovlen = n_parts,
                             .msg_control = control,
                             .msg_controllen = control_size};
    ssize_t n = recvmsg(fd, &message, MSG_DONTWAIT);

    say_count(step, n);
    printf("flags %#x, control %zu, address %u\n", (unsigned)message.msg_flags,
           (size_t)message.msg_controllen, n < 0 ? 0 : message.msg_namelen);
}

static void receive_plainly(int fd, const char *step, void *to, size_t size)
{
    struct sockaddr_storage source;
    socklen_t length = sizeof(source);

    say_count(step, recvfrom(fd, to, size, MSG_DONTWAIT, (struct sockaddr *)&source, &length));
}

/* A datagram goes to the last bytes of a page, and after it there is none. */
static char *end_of_memory(size_t n_left)
{
    char *pages = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    sure("munmap", munmap(pages + PAGE, PAGE));
    return pages + PAGE - n_left;
}

static void receive_all(void)
{
    int fd = udp_socket();
    static char room[64];
    struct iovec parts[2] = {{room, (size_t)-1}, {room + 32, 32}};

    have(fd);
    receive_plainly(fd, "nothing, not ours", not_ours, 0);
    receive_plainly(fd, "one byte, not ours", not_ours, 1);
    receive_message(fd, "a part of all memory", parts, 1, NULL, 0);
    receive_message(fd, "too many parts", parts, 1025, NULL, 0);
    receive_message(fd, "all the parts there are", parts, (size_t)-1, NULL, 0);
    parts[0].iov_base = not_ours;
    parts[0].iov_len = 0;
    receive_message(fd, "no room that is not ours", parts, 2, NULL, 0);
    receive_plainly(fd, "room for all of memory", room, (size_t)-1);
    have(fd);
    receive_plainly(fd, "room for more than an int", room, more_than_int);
    have(fd);
    receive_plainly(fd, "more room than there is", end_of_memory(32), 1 << 20);
    have(fd);
    receive_plainly(fd, "less memory than the datagram", end_of_memory(4), 1 << 20);
    have(fd);
    parts[0] = (struct iovec){room, most};
    receive_message(fd, "a part of half of memory", parts, 2, NULL, 0);
    have(fd);
    parts[0] = (struct iovec){room, 4};
    parts[1] = (struct iovec){end_of_memory(32), most};
    receive_message(fd, "a small and a large one", parts, 2, NULL, 0);
    sure("SO_TIMESTAMP", setsockopt(fd, SOL_SOCKET, SO_TIMESTAMP, &(int){1}, sizeof(int)));
    have(fd);
    parts[0] = (struct iovec){room, sizeof(room)};
    receive_message(fd, "control that is not there", parts, 1, NULL, 64);
    have(fd);
    receive_message(fd, "control of more than an int", parts, 1, end_of_memory(PAGE),
                    more_than_int);
    have(fd);
    receive_message(fd, "control at the end of memory", parts, 1, end_of_memory(64), PAGE);
}

struct many {
    struct mmsghdr messages[4];
    struct iovec parts[4];
    char room[4][64];
};

static struct many *many(void)
{
    static struct many all;

    memset(&all, 0, sizeof(all));
    for (int i = 0; i < 4; i++) {
        all.parts[i] = (struct iovec){all.room[i], sizeof(all.room[i])};
        all.messages[i].msg_hdr.msg_iov = &all.parts[i];
        all.messages[i].msg_hdr.msg_iovlen = 1;
    }
    return &all;
}

/* The two layouts of a time: what the ABI's own longs are, and 64 bits in every ABI. */
struct old_time {
    long seconds;
    long nanoseconds;
};

struct wide_time {
    int64_t seconds;
    int64_t nanoseconds;
};

static long receive_many(int fd, unsigned n, int flags, void *timeout)
{
    return syscall(SYS_recvmmsg, fd, many()->messages, n, flags, timeout);
}

static long receive_many_wide(int fd, unsigned n, int flags, void *timeout)
{
#ifdef SYS_recvmmsg_time64
    return syscall(SYS_recvmmsg_time64, fd, many()->messages, n, flags, timeout);
#else
    return receive_many(fd, n, flags, timeout);
#endif
}

#ifdef SYS_socketcall
static long receive_many_by_socketcall(int fd, unsigned n, int flags, void *timeout)
{
    unsigned long args[] = {(unsigned long)fd, (unsigned long)many()->messages, n,
                            (unsigned long)flags, (unsigned long)timeout};

    return syscall(SYS_socketcall, 19, args); /* linux/net.h: SYS_RECVMMSG */
}
#endif

typedef long receive_call(int fd, unsigned n, int flags, void *timeout);

static void in_old_time(int fd, receive_call *receive)
{
    struct old_time time = {.nanoseconds = 1};
    char *end = end_of_memory(sizeof(time));

    have(fd);
    say_count("until a nanosecond is over", receive(fd, 2, 0, &time));
    printf("left: %ld %ld\n", time.seconds, time.nanoseconds);
    time = (struct old_time){.seconds = 1000};
    have(fd);
    say_count("in time", receive(fd, 1, 0, &time));
    printf("left: %ld, less: %d\n", time.seconds, time.nanoseconds > 0);
    time = (struct old_time){.seconds = -1};
    say_count("a negative second", receive(fd, 1, 0, &time));
    time = (struct old_time){.nanoseconds = 1000000000};
    say_count("a billion nanoseconds", receive(fd, 1, 0, &time));
    say_count("no fd, and a billion nanoseconds", receive(-1, 1, 0, &time));
    say_count("a time from nowhere", receive(fd, 1, 0, nowhere));
    time = (struct old_time){.seconds = (long)most};
    have(fd);
    say_count("for ever", receive(fd, 1, 0, &time));
    printf("left for ever: %d\n", time.seconds > 1000);
    time = (struct old_time){.seconds = 1000};
    say_count("nothing there", receive(fd, 1, MSG_DONTWAIT, &time));
    printf("left: %ld %ld\n", time.seconds, time.nanoseconds);
    memcpy(end, &time, sizeof(time));
    sure("mprotect", mprotect((void *)((uintptr_t)end & -(uintptr_t)PAGE), PAGE, PROT_READ));
    have(fd);
    say_count("a time that cannot be written", receive(fd, 1, 0, end));
    say_count("it is gone", receive(fd, 1, MSG_DONTWAIT, NULL));
    say_count("none at all", receive(fd, 0, 0, NULL));
    say_count("none at all, no fd", receive(-1, 0, 0, NULL));
    have(fd);
    say_count("as many as there are", receive(fd, 1, MSG_DONTWAIT, NULL));
}

static void in_wide_time(int fd)
{
    const int64_t garbage = (int64_t)0x5a5a5a5a << 32;
    struct wide_time time = {.nanoseconds = garbage | 1};

    have(fd);
    say_count("padding before a nanosecond", receive_many_wide(fd, 2, 0, &time));
    if (sizeof(long) == 8) /* it is no padding there */
        time.nanoseconds = 0;
    printf("left: %lld %lld\n", (long long)time.seconds, (long long)time.nanoseconds);
    time = (struct wide_time){.seconds = 1000, .nanoseconds = garbage};
    say_count("padding, nothing there", receive_many_wide(fd, 1, MSG_DONTWAIT, &time));
    have(fd);
    say_count("padding, in time", receive_many_wide(fd, 1, MSG_DONTWAIT, &time));
    printf("left: %lld, less: %d\n", (long long)time.seconds, time.nanoseconds < garbage);
    time = (struct wide_time){.seconds = (int64_t)1 << 40};
    have(fd);
    say_count("longer than 32 bits", receive_many_wide(fd, 1, MSG_DONTWAIT, &time));
    printf("left for ever: %d\n", time.seconds > 1000);
    time = (struct wide_time){.nanoseconds = -1};
    say_count("a negative nanosecond", receive_many_wide(fd, 1, MSG_DONTWAIT, &time));
}

int main(int argc, char **argv)
{
    const char *scenario = argv[1];

    (void)argc;
    server = address_of(argv[2], argv[3]);
    if (strcmp(scenario, "send") == 0)
        send_all();
    else if (strcmp(scenario, "receive") == 0)
        receive_all();
    else {
        int fd = udp_socket();

        in_old_time(fd, receive_many);
        in_wide_time(fd);
#ifdef SYS_socketcall
        in_old_time(fd, receive_many_by_socketcall);
#endif
    }
    return 0;
}
