/* Registrations: what a program has put in its epoll instances is found, and made again for another
 * file so that the program cannot tell. The program is a child; the test plays the agent. */
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "check.h"

#define N_EPOLLS_MAX (MFD_REGISTRATIONS_MAX + 1) /* one more than meshfd follows */

struct program { /* a child, and what it has open */
    pid_t pid;
    int channel; /* one byte orders its next step, one answers */
    int socket_fd;
    int n_epolls;
    int epoll_fds[N_EPOLLS_MAX];
};

struct saw { /* what the child tells at its end */
    int n_ready[N_EPOLLS_MAX];
    struct epoll_event events[N_EPOLLS_MAX];
    int modified; /* errno of EPOLL_CTL_MOD with the new file in place */
};

static struct epoll_event registration(int i)
{
    return (struct epoll_event){
        .events = EPOLLIN | (i % 2 == 1 ? EPOLLEXCLUSIVE : EPOLLET | EPOLLRDHUP),
        .data.u64 = 0xfedcba9876543210u + (unsigned)i,
    };
}

static bool step(int channel)
{
    char byte;

    return write(channel, "x", 1) == 1 && read(channel, &byte, 1) == 1;
}

static int receive_fd(int channel)
{
    char byte;
    struct iovec part = {.iov_base = &byte, .iov_len = 1};
    union {
        struct cmsghdr align;
        uint8_t room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};
    int fd = -1;

    if (recvmsg(channel, &message, 0) == 1 && CMSG_FIRSTHDR(&message) != NULL)
        memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
    return fd;
}

static void send_fd(int channel, int fd)
{
    char byte = 'x';
    struct iovec part = {.iov_base = &byte, .iov_len = 1};
    union {
        struct cmsghdr align;
        uint8_t room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);

    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(rights), &fd, sizeof(fd));
    NEED(sendmsg(channel, &message, 0) == 1);
}

/* The child: registers, gives its number to another file, tells what its instances report. */
static void run_program(struct program *self, int n_epolls)
{
    struct saw saw = {0};
    struct epoll_event event;
    int new_fd;

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    self->n_epolls = n_epolls;
    for (int i = 0; i < n_epolls; i++) {
        self->epoll_fds[i] = epoll_create1(0);
        if (i == 0)
            self->socket_fd = socket(AF_INET, SOCK_STREAM, 0); /* above one, below the others */
        event = registration(i);
        if (epoll_ctl(self->epoll_fds[i], EPOLL_CTL_ADD, self->socket_fd, &event) < 0)
            _exit(2);
    }
    if (n_epolls == 0)
        self->socket_fd = socket(AF_INET, SOCK_STREAM, 0);
    if (write(self->channel, self, sizeof(*self)) != sizeof(*self))
        _exit(3);
    new_fd = receive_fd(self->channel);
    if (new_fd < 0)
        _exit(0);
    if (dup2(new_fd, self->socket_fd) < 0 || close(new_fd) < 0 || !step(self->channel))
        _exit(4);
    for (int i = 0; i < n_epolls; i++)
        saw.n_ready[i] = epoll_wait(self->epoll_fds[i], &saw.events[i], 1, 5000);
    event = registration(0);
    if (epoll_ctl(self->epoll_fds[0], EPOLL_CTL_MOD, self->socket_fd, &event) < 0)
        saw.modified = errno;
    _exit(write(self->channel, &saw, sizeof(saw)) == sizeof(saw) ? 0 : 5);
}

static struct program start_program(int n_epolls)
{
    struct program program = {.socket_fd = -1};
    int channel[2];

    NEED(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, channel) == 0);
    program.pid = fork();
    NEED(program.pid >= 0);
    if (program.pid == 0) {
        (void)close(channel[0]);
        program.channel = channel[1];
        run_program(&program, n_epolls);
    }
    (void)close(channel[1]);
    {
        pid_t pid = program.pid;

        NEED(read(channel[0], &program, sizeof(program)) == sizeof(program));
        program.pid = pid;
        program.channel = channel[0];
    }
    return program;
}

static void end_program(struct program *program)
{
    int status = -1;

    (void)close(program->channel);
    CHECK(waitpid(program->pid, &status, 0) == program->pid);
    CHECK_EQ(status, 0);
    mfd_target_forget_all();
}

static int listening_socket(uint16_t *ret_port)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof(in);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    NEED(fd >= 0 && bind(fd, (struct sockaddr *)&in, length) == 0 && listen(fd, 8) == 0);
    NEED(getsockname(fd, (struct sockaddr *)&in, &length) == 0);
    *ret_port = ntohs(in.sin_port);
    return fd;
}

static int connect_to(uint16_t port)
{
    struct sockaddr_in in = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    NEED(fd >= 0 && connect(fd, (struct sockaddr *)&in, sizeof(in)) == 0);
    return fd;
}

static void registrations_move_to_the_new_file(int n_epolls)
{
    unsigned before = count_open_fds();
    struct program program = start_program(n_epolls);
    struct mfd_registrations *found = NULL;
    struct saw saw;
    uint16_t port;
    int new_fd = listening_socket(&port);
    int client;
    char byte;

    CHECK_EQ(mfd_epoll_collect(program.pid, &program.socket_fd, 1, &found), 0);
    send_fd(program.channel, new_fd); /* the old file goes, and its registrations with it */
    NEED(read(program.channel, &byte, 1) == 1);
    CHECK_EQ(mfd_epoll_restore(found, new_fd), 0);
    CHECK_EQ(mfd_epoll_restore(found, -1), 0); /* nothing is left in it */
    client = connect_to(port);
    NEED(write(program.channel, "x", 1) == 1);
    NEED(read(program.channel, &saw, sizeof(saw)) == sizeof(saw));
    for (int i = 0; i < n_epolls; i++) {
        CHECK_EQ(saw.n_ready[i], 1);
        CHECK_EQ(saw.events[i].events, EPOLLIN);
        CHECK_EQ(saw.events[i].data.u64, registration(i).data.u64);
    }
    CHECK_EQ(saw.modified, 0);
    end_program(&program);
    (void)close(client);
    (void)close(new_fd);
    CHECK_EQ(count_open_fds(), before);
}

static void events_are_kept_exactly(void)
{
    struct program program = start_program(2);
    struct mfd_registrations *found = NULL;
    MFD_CLOSE int new_fd = -1;
    uint16_t port;
    char path[64];
    char line[256];
    char wanted[64];
    char byte;

    new_fd = listening_socket(&port);
    CHECK_EQ(mfd_epoll_collect(program.pid, &program.socket_fd, 1, &found), 0);
    send_fd(program.channel, new_fd);
    NEED(read(program.channel, &byte, 1) == 1);
    CHECK_EQ(mfd_epoll_restore(found, new_fd), 0);
    for (int i = 0; i < 2; i++) {
        bool seen = false;
        FILE *info;

        (void)snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", program.pid, program.epoll_fds[i]);
        info = fopen(path, "re");
        NEED(info != NULL);
        (void)snprintf(wanted, sizeof(wanted), "events: %8x data: %16llx",
                       registration(i).events | EPOLLERR | EPOLLHUP,
                       (unsigned long long)registration(i).data.u64);
        while (fgets(line, sizeof(line), info) != NULL)
            seen = seen || strstr(line, wanted) != NULL;
        (void)fclose(info);
        CHECK(seen);
    }
    (void)kill(program.pid, SIGKILL);
    (void)close(program.channel);
    CHECK(waitpid(program.pid, NULL, 0) == program.pid);
    mfd_target_forget_all();
}

static void nothing_is_found_where_nothing_is(void)
{
    unsigned before = count_open_fds();
    struct program program = start_program(0);
    struct mfd_registrations *found = NULL;

    CHECK_EQ(mfd_epoll_collect(program.pid, &program.socket_fd, 1, &found), 0);
    CHECK_EQ(mfd_epoll_restore(found, 0), 0);
    CHECK_EQ(mfd_epoll_collect(program.pid, (const int[]){999}, 1, &found), 0);
    CHECK_EQ(mfd_epoll_restore(NULL, -1), 0);
    end_program(&program);
    CHECK(mfd_epoll_collect(program.pid, (const int[]){3}, 1, &found) < 0); /* gone */
    CHECK_EQ(mfd_epoll_restore(found, -1), 0);
    CHECK_EQ(count_open_fds(), before);
}

static void too_many_instances_are_refused_and_nothing_is_kept(void)
{
    unsigned before = count_open_fds();
    struct program program = start_program(N_EPOLLS_MAX);
    struct mfd_registrations *found = NULL;

    CHECK_EQ(mfd_epoll_collect(program.pid, &program.socket_fd, 1, &found), -ENOSPC);
    end_program(&program);
    CHECK_EQ(count_open_fds(), before);
}

/* Of the program's files and of ours there are more than a usual soft limit allows. */
static void raise_limit(void)
{
    struct rlimit limit;

    NEED(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = limit.rlim_max;
    NEED(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

int main(void)
{
    raise_limit();
    registrations_move_to_the_new_file(1);
    registrations_move_to_the_new_file(2);
    registrations_move_to_the_new_file(500);
    events_are_kept_exactly();
    nothing_is_found_where_nothing_is();
    too_many_instances_are_refused_and_nothing_is_kept();
    return check_result();
}
