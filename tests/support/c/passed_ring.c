/* passed_ring.c - passed_ring make|poll HOST PORT COMMAND...: make a ring of io_uring, and a socket; pass them on
 * passed_ring use RING_FD MEMORY_FD HOST PORT: have a ring that somebody else made connect
 *
 * The maker runs COMMAND with "use", both numbers, HOST and PORT after it, and waits for its end. With "poll" a
 * thread of the kernel's, which belongs to the maker, takes what is submitted: then the socket and the memory are
 * the maker's, and io_uring_enter() is not needed. */
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "say.h"

#define ENTRIES 4
#define IDLE_MS 60000 /* the kernel's thread looks so long before it sleeps */
#define NO_SUCH_OPERATION 9999
#define ROOM 65536

/* What the user of a ring has to know; in memory that both have. */
struct passed {
    struct io_uring_params params;
    uintptr_t sockaddr; /* in the maker's memory */
    socklen_t length;
    int fd; /* the maker's socket */
};

struct ring {
    struct passed *passed;
    struct io_uring_sqe *entries;
    char *shared;
};

static void *map(int fd, size_t size, off_t offset)
{
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);

    if (at == MAP_FAILED)
        sure("mmap", -1);
    return at;
}

static struct ring open_ring(int ring_fd, int memory_fd)
{
    return (struct ring){
        .passed = map(memory_fd, sizeof(struct passed), 0),
        .entries = map(ring_fd, ENTRIES * sizeof(struct io_uring_sqe), IORING_OFF_SQES),
        .shared = map(ring_fd, ROOM, IORING_OFF_SQ_RING),
    };
}

static int enter(int ring_fd, unsigned n_submit, unsigned n_wait, unsigned flags)
{
    return (int)syscall(SYS_io_uring_enter, ring_fd, n_submit, n_wait,
                        IORING_ENTER_GETEVENTS | flags, NULL, 0);
}

static void submit(const struct ring *ring, const struct io_uring_sqe *entry)
{
    const struct io_sqring_offsets *at = &ring->passed->params.sq_off;
    unsigned *tail = (unsigned *)(ring->shared + at->tail);
    unsigned index = *tail % ENTRIES;

    ring->entries[index] = *entry;
    ((unsigned *)(ring->shared + at->array))[index] = index;
    __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
}

/* @sockaddr: in the memory of whoever it is done for */
static void submit_connect(const struct ring *ring, int fd, uintptr_t sockaddr, socklen_t length)
{
    const struct io_uring_sqe entry = {
        .opcode = IORING_OP_CONNECT, .fd = fd, .addr = sockaddr, .off = length};

    submit(ring, &entry);
}

/* From its first work on, the kernel's thread looks for more by itself, for IDLE_MS. */
static void wake_thread(const struct ring *ring, int ring_fd)
{
    const struct io_uring_sqe nothing = {.opcode = IORING_OP_NOP};
    const struct io_cqring_offsets *at = &ring->passed->params.cq_off;

    submit(ring, &nothing);
    sure("io_uring_enter", enter(ring_fd, 1, 1, IORING_ENTER_SQ_WAKEUP));
    *(unsigned *)(ring->shared + at->head) = *(unsigned *)(ring->shared + at->tail);
}

static void say_peer(const char *whose, int fd)
{
    struct sockaddr_storage peer;
    socklen_t length = sizeof(peer);

    say(getpeername(fd, (struct sockaddr *)&peer, &length), "peer of the %s", whose);
}

static int use(char **words)
{
    int ring_fd = atoi(words[0]);
    struct ring ring = open_ring(ring_fd, atoi(words[1]));
    struct address address = address_of(words[2], words[3]);
    int fd = tcp_socket(&address, 0);

    say((int)syscall(SYS_io_uring_register, ring_fd, NO_SUCH_OPERATION, NULL, 0), "register");
    if ((ring.passed->params.flags & IORING_SETUP_SQPOLL) != 0) {
        submit_connect(&ring, ring.passed->fd, ring.passed->sockaddr, ring.passed->length);
        wait_for(ring_fd, POLLIN);
    } else {
        submit_connect(&ring, fd, (uintptr_t)&address.storage, address.length);
        say(enter(ring_fd, 1, 1, 0), "enter");
    }
    say_peer("user", fd);
    return 0;
}

static void run(char **command, int ring_fd, int memory_fd, char *host, char *port)
{
    char numbers[2][16];
    char *words[64];
    size_t n = 0;

    for (; command[n] != NULL && n < 58; n++)
        words[n] = command[n];
    snprintf(numbers[0], sizeof(numbers[0]), "%d", ring_fd);
    snprintf(numbers[1], sizeof(numbers[1]), "%d", memory_fd);
    words[n++] = "use";
    words[n++] = numbers[0];
    words[n++] = numbers[1];
    words[n++] = host;
    words[n++] = port;
    words[n] = NULL;
    execvp(words[0], words);
    sure("exec", -1);
}

static int make(int polled, char **words)
{
    static struct address address;
    int memory_fd = sure("memfd_create", memfd_create("passed", 0));
    struct passed *passed;
    int ring_fd, status;
    pid_t child;

    address = address_of(words[0], words[1]);
    sure("ftruncate", ftruncate(memory_fd, sizeof(*passed)));
    passed = map(memory_fd, sizeof(*passed), 0);
    passed->sockaddr = (uintptr_t)&address.storage;
    passed->length = address.length;
    passed->fd = tcp_socket(&address, 0);
    if (polled) {
        passed->params.flags = IORING_SETUP_SQPOLL;
        passed->params.sq_thread_idle = IDLE_MS;
    }
    ring_fd = sure("io_uring_setup", (int)syscall(SYS_io_uring_setup, ENTRIES, &passed->params));
    if (polled) {
        struct ring ring = open_ring(ring_fd, memory_fd);

        wake_thread(&ring, ring_fd);
    }
    sure("F_SETFD", fcntl(ring_fd, F_SETFD, 0));
    child = sure("fork", fork());
    if (child == 0)
        run(words + 2, ring_fd, memory_fd, words[0], words[1]);
    sure("waitpid", waitpid(child, &status, 0));
    say_peer("maker", passed->fd);
    return WIFEXITED(status) ? WEXITSTATUS(status) : SET_UP_FAILED;
}

int main(int argc, char **argv)
{
    (void)argc;
    if (strcmp(argv[1], "use") == 0)
        return use(argv + 2);
    return make(strcmp(argv[1], "poll") == 0, argv + 2);
}
