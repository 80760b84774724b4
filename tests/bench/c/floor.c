/* floor.c - the least that intercepting calls can cost
 *
 * Usage: floor KIND PROGRAM [ARGUMENT]...
 *
 *   KIND      the filter                                          compares with
 *   allow     one instruction that lets everything through        what no filter can be cheaper than
 *   connect   notifies for connect() to internet addresses        meshfd
 *   create    the same, and for socket() of TCP, IPv4 and IPv6    meshfd with track = "create"
 *   told      notifies for connect(), sendto() with an address    meshfd with UDP routes, and transparent
 *             and getpeername()
 *
 * Theory of operation: runs the program under the filter. With `allow` that is all. Else it receives
 * each notification in a blocking ioctl and answers CONTINUE, having looked at nothing. Whatever an
 * interceptor does for its living comes on top of this. It uses what the kernel offers to make the
 * round trip fast and safe, as meshfd does: SYNC_WAKE_UP and WAIT_KILLABLE_RECV.
 *
 * The child sends the listener over a socket pair, which the filter does not trap. When the last
 * process is gone RECV returns ENOENT at once, so the loop then looks whether the program has ended.
 * Exit status: the program's, 128+n for a signal, 125 when it could not be run.
 * Source: seccomp_unotify(2). */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif
#ifndef SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP
#define SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP (1UL << 0)
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#endif

#if defined(__x86_64__)
#define NATIVE_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define NATIVE_ARCH AUDIT_ARCH_AARCH64
#else
#error "floor.c: name this CPU's AUDIT_ARCH_ here"
#endif

#define FAILED 125
#define SOCK_TYPE_BITS 0xf
#define SOCKADDR_MAX 128

/* the low half of an argument: both CPUs above are little-endian */
#define ARGUMENT(n) (offsetof(struct seccomp_data, args) + 8 * (n))
#define LOAD(at) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(at))
#define WHEN(test, value, yes, no) BPF_JUMP(BPF_JMP | BPF_K | (test), value, yes, no)
#define ANSWER(action) BPF_STMT(BPF_RET | BPF_K, action)

#define SOCKET_TEST 4 /* its index in the filter below */

static int forgo_privileges(void)
{
    return geteuid() == 0 ? 0 : prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

static int install_allowing(void)
{
    struct sock_filter program[] = {ANSWER(SECCOMP_RET_ALLOW)};
    struct sock_fprog filter = {.len = 1, .filter = program};

    if (forgo_privileges() < 0)
        return -1;
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter);
}

static int install(struct sock_filter *program, size_t n)
{
    struct sock_fprog filter = {.len = (unsigned short)n, .filter = program};

    if (forgo_privileges() < 0)
        return -1;
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                        SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
                        &filter);
}

static int install_told(void)
{
    struct sock_filter program[] = {
        LOAD(offsetof(struct seccomp_data, arch)),
        WHEN(BPF_JEQ, NATIVE_ARCH, 0, 6),
        LOAD(offsetof(struct seccomp_data, nr)),
        WHEN(BPF_JEQ, SYS_connect, 5, 0),
        WHEN(BPF_JEQ, SYS_getpeername, 4, 0),
        WHEN(BPF_JEQ, SYS_sendto, 0, 2),
        LOAD(ARGUMENT(4)), /* sendto: the address */
        WHEN(BPF_JEQ, 0, 0, 1),
        ANSWER(SECCOMP_RET_ALLOW),
        ANSWER(SECCOMP_RET_USER_NOTIF),
    };

    return install(program, sizeof(program) / sizeof(program[0]));
}

static int install_notifying(bool create)
{
    struct sock_filter program[] = {
        LOAD(offsetof(struct seccomp_data, arch)),
        WHEN(BPF_JEQ, NATIVE_ARCH, 1, 0),
        ANSWER(SECCOMP_RET_ALLOW),
        LOAD(offsetof(struct seccomp_data, nr)),
        WHEN(BPF_JEQ, SYS_socket, 6, 0),
        WHEN(BPF_JEQ, SYS_connect, 0, 4),
        LOAD(ARGUMENT(2)), /* connect: the address's length */
        WHEN(BPF_JGT, SOCKADDR_MAX, 2, 0),
        WHEN(BPF_JGE, sizeof(struct sockaddr_in), 0, 1),
        WHEN(BPF_JEQ, sizeof(struct sockaddr_un), 0, 11),
        ANSWER(SECCOMP_RET_ALLOW),
        LOAD(ARGUMENT(0)), /* socket: domain, type, protocol */
        WHEN(BPF_JEQ, AF_INET, 1, 0),
        WHEN(BPF_JEQ, AF_INET6, 0, 6),
        LOAD(ARGUMENT(1)),
        BPF_STMT(BPF_ALU | BPF_K | BPF_AND, SOCK_TYPE_BITS),
        WHEN(BPF_JEQ, SOCK_STREAM, 0, 3),
        LOAD(ARGUMENT(2)),
        WHEN(BPF_JEQ, 0, 2, 0),
        WHEN(BPF_JEQ, IPPROTO_TCP, 1, 0),
        ANSWER(SECCOMP_RET_ALLOW),
        ANSWER(SECCOMP_RET_USER_NOTIF),
    };

    if (!create) /* whatever the test says, on to the next */
        program[SOCKET_TEST].jt = 0;
    return install(program, sizeof(program) / sizeof(program[0]));
}

union fd_message {
    struct cmsghdr header;
    char room[CMSG_SPACE(sizeof(int))];
};

static int send_fd(int channel, int fd)
{
    char byte = 0;
    struct iovec data = {.iov_base = &byte, .iov_len = 1};
    union fd_message control = {.header = {.cmsg_len = CMSG_LEN(sizeof(int)),
                                           .cmsg_level = SOL_SOCKET,
                                           .cmsg_type = SCM_RIGHTS}};
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};

    memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
    return sendmsg(channel, &message, MSG_NOSIGNAL) < 0 ? -1 : 0;
}

static int receive_fd(int channel)
{
    char byte;
    int fd;
    struct iovec data = {.iov_base = &byte, .iov_len = 1};
    union fd_message control;
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};

    if (recvmsg(channel, &message, MSG_CMSG_CLOEXEC) <= 0 || CMSG_FIRSTHDR(&message) == NULL)
        return -1;
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
    return fd;
}

_Noreturn static void become(char **argv)
{
    (void)execvp(argv[0], argv);
    perror(argv[0]);
    _exit(FAILED);
}

_Noreturn static void run_program(int channel, const char *kind, char **argv)
{
    int listener =
        strcmp(kind, "told") == 0 ? install_told() : install_notifying(strcmp(kind, "create") == 0);

    if (listener < 0 || send_fd(channel, listener) < 0) {
        perror("floor: seccomp");
        _exit(FAILED);
    }
    (void)close(listener);
    become(argv);
}

static int exit_status(int status)
{
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Return: the exit status to give. */
static int answer_until_end(int listener, pid_t program, struct seccomp_notif *call,
                            struct seccomp_notif_resp *answer,
                            const struct seccomp_notif_sizes *sizes)
{
    int status;

    for (;;) {
        memset(call, 0, sizes->seccomp_notif);
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, call) < 0) {
            if (errno != ENOENT && errno != EINTR) {
                perror("floor: receive");
                return FAILED;
            }
            if (waitpid(program, &status, WNOHANG) == program)
                return exit_status(status);
            continue;
        }
        answer->id = call->id;
        answer->flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, answer) < 0 && errno != ENOENT) {
            perror("floor: send");
            return FAILED;
        }
    }
}

int main(int argc, char **argv)
{
    struct seccomp_notif_sizes sizes;
    struct seccomp_notif *call;
    struct seccomp_notif_resp *answer;
    int channel[2];
    int listener;
    pid_t program;

    if (argc < 3) {
        fputs("usage: floor allow|connect|create|told PROGRAM [ARGUMENT]...\n", stderr);
        return FAILED;
    }
    if (strcmp(argv[1], "allow") == 0) {
        if (install_allowing() == 0)
            become(argv + 2);
        perror("floor: seccomp");
        return FAILED;
    }
    if (syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes) < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel) < 0) {
        perror("floor");
        return FAILED;
    }
    program = fork();
    if (program == 0)
        run_program(channel[1], argv[1], argv + 2);
    (void)close(channel[1]);
    call = calloc(1, sizes.seccomp_notif);
    answer = calloc(1, sizes.seccomp_notif_resp);
    listener = receive_fd(channel[0]);
    if (program < 0 || call == NULL || answer == NULL || listener < 0)
        return FAILED;
    /* Faster where both run on one CPU; kernels before 6.6 do without. */
    (void)ioctl(listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP);
    return answer_until_end(listener, program, call, answer, &sizes);
}
