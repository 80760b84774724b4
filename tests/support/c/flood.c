/* flood.c - flood MODE N HOST PORT HOST PORT: N threads that do their worst, beside a program that does not
 *
 * The threads are a child's. Whatever they do, the parent connects to the first address, again and again,
 * and counts its greetings. The test says when to begin, when to stop, and when to end.
 *
 * nonsense: calls with random fds, pointers and lengths, as fast as they go
 * memory:   connect() whose address is rewritten, made unreadable and unmapped meanwhile
 * fds:      calls when no fd is free, and sockets that are made, connected and closed
 * hold:     each waits in connect() to the second address, which does not answer; so does the parent, for a while
 * The others, too, mean the second address, which refuses then. */
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "say.h"

#define N_GREETINGS 200
#define STACK_BYTES (64 * 1024)
#define PAGE 4096
#define PAUSE_US 1000
#define TIMEOUT_US 100000

static struct address good, other;
static struct shared {
    unsigned n_calls;
    unsigned n_strange; /* results that no manual page has */
    int strange;        /* the last of them, an errno */
} *shared;

/* connect(2), bind(2), socket(2), ip(7), and what the kernel's own checks say bare */
static const int documented[] = {
    0,           EACCES,   EADDRINUSE,   EADDRNOTAVAIL, EAFNOSUPPORT, EALREADY,     EBADF,
    EFAULT,      EINVAL,   EINPROGRESS,  ECONNREFUSED,  EISCONN,      EINTR,        EMFILE,
    ENETUNREACH, ENOTSOCK, EHOSTUNREACH, ETIMEDOUT,     EOPNOTSUPP,   ECONNABORTED,
};

static int note(int value)
{
    int error = value < 0 ? errno : 0;

    __atomic_add_fetch(&shared->n_calls, 1, __ATOMIC_RELAXED);
    for (size_t i = 0; i < sizeof(documented) / sizeof(documented[0]); i++)
        if (documented[i] == error)
            return value;
    shared->strange = error;
    __atomic_add_fetch(&shared->n_strange, 1, __ATOMIC_RELAXED);
    return value;
}

static unsigned next_random(unsigned *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

static void *talk_nonsense(void *argument)
{
    unsigned random = (unsigned)(uintptr_t)argument + 1;
    unsigned char noise[256];

    for (;;) {
        unsigned choice = next_random(&random);
        int fd = (int)(choice >> 8) % 64 - 1;
        socklen_t length = choice & 1 ? 16 : (choice >> 16) % 300;
        void *where = choice & 2 ? noise : (void *)(uintptr_t)(choice * 4096ul);

        for (size_t i = 0; i < sizeof(noise); i += sizeof(random))
            memcpy(noise + i, &(unsigned){next_random(&random)}, sizeof(random));
        noise[0] = (unsigned char[]){AF_INET, AF_INET6, AF_UNSPEC, AF_UNIX}[choice % 4];
        noise[1] = 0;
        noise[4] = 127; /* nothing leaves this host */
        if (noise[0] == AF_INET6)
            memset(noise + 8, 0, 16);
        if (fd <= STDERR_FILENO)
            fd = 63;
        switch ((choice >> 4) % 4) {
        case 0:
            note(connect(fd, where, length));
            break;
        case 1:
            note(bind(fd, where, length));
            break;
        case 2:
            note(listen(fd, (int)choice));
            break;
        default:
            close(fd);
            note(socket(choice & 4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0));
        }
    }
    return NULL;
}

static unsigned char *moving;

static void *move_memory(void *unused)
{
    static const sa_family_t families[] = {AF_INET, AF_INET6, AF_UNSPEC, AF_INET};

    for (unsigned i = 0;; i++) {
        (void)unused;
        sure("mmap", mmap(moving, PAGE, PROT_READ | PROT_WRITE,
                          MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED
                         ? -1
                         : 0);
        memcpy(moving, &other.storage, other.length);
        for (unsigned k = 0; k < 64; k++)
            *(volatile sa_family_t *)moving = families[k % 4];
        if (i % 2)
            mprotect(moving, PAGE, PROT_NONE);
        else
            munmap(moving, PAGE);
    }
    return NULL;
}

static void *connect_moving(void *argument)
{
    (void)argument;
    for (;;) {
        int fd = tcp_socket(&other, SOCK_NONBLOCK);

        note(connect(fd, (void *)moving, other.length));
        note(bind(fd, (void *)moving, other.length));
        close(fd);
    }
    return NULL;
}

static void *exhaust(void *argument)
{
    (void)argument;
    for (;;) {
        int fd = note(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));

        note(dial(fd, &other));
        if (fd < 0)
            for (int i = 10; i < 20; i++)
                close(i);
    }
    return NULL;
}

static void *hold(void *argument)
{
    int fd = tcp_socket(&other, 0);

    (void)argument;
    note(dial(fd, &other));
    return NULL;
}

static const struct mode {
    const char *name;
    void *(*run)(void *argument);
    void *(*beside)(void *argument); /* in one more thread, or NULL */
} modes[] = {
    {"nonsense", talk_nonsense, NULL},
    {"memory", connect_moving, move_memory},
    {"fds", exhaust, NULL},
    {"hold", hold, NULL},
};

static void start_thread(void *(*run)(void *argument), uintptr_t number)
{
    pthread_attr_t small;
    pthread_t thread;

    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, STACK_BYTES);
    sure("pthread_create", -pthread_create(&thread, &small, run, (void *)number));
}

static void misbehave(const struct mode *mode, unsigned n)
{
    struct rlimit fds;

    sure("getrlimit", getrlimit(RLIMIT_NOFILE, &fds));
    fds.rlim_cur = mode->run == exhaust ? 64 : fds.rlim_max;
    sure("setrlimit", setrlimit(RLIMIT_NOFILE, &fds));
    moving = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mode->beside != NULL)
        start_thread(mode->beside, 0);
    for (unsigned i = 0; i < n; i++)
        start_thread(mode->run, i);
    for (;;)
        pause();
}

static void be_greeted(void)
{
    int n_greeted = 0;

    for (int i = 0; i < N_GREETINGS; i++) {
        char text[64];
        int fd = tcp_socket(&good, 0);

        if (dial(fd, &good) < 0)
            say(-1, "connect");
        else
            n_greeted += recv(fd, text, sizeof(text), 0) > 0;
        close(fd);
    }
    printf("greeted: %d\n", n_greeted);
    fflush(stdout);
}

static void wait_a_while(void)
{
    const struct timeval timeout = {.tv_usec = TIMEOUT_US};
    int fd = tcp_socket(&other, 0);

    sure("SO_SNDTIMEO", setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)));
    say(dial(fd, &other), "wait");
    close(fd);
}

int main(int argc, char **argv)
{
    const struct mode *mode = modes;
    pid_t child;

    (void)argc;
    good = address_of(argv[3], argv[4]);
    other = address_of(argv[5], argv[6]);
    while (strcmp(mode->name, argv[1]) != 0)
        mode++;
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    printf("parent: %d\n", (int)getppid());
    fflush(stdout);
    be_greeted();
    wait_line();
    child = sure("fork", fork());
    if (child == 0)
        misbehave(mode, (unsigned)atoi(argv[2]));
    while (mode->run != hold && __atomic_load_n(&shared->n_calls, __ATOMIC_RELAXED) == 0)
        usleep(PAUSE_US);
    puts("begun");
    fflush(stdout);
    wait_line();
    be_greeted();
    if (mode->run == hold)
        wait_a_while();
    wait_line();
    sure("kill", kill(child, SIGKILL));
    sure("waitpid", waitpid(child, NULL, 0));
    printf("calls: %u\n", shared->n_calls);
    printf("strange: %u %s\n", shared->n_strange, name_of(shared->strange));
    fflush(stdout);
    wait_line();
    return 0;
}
