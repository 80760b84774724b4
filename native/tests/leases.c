/* Leases: what is held, for how long, and that giving up really closes the duplicate. */
#include "lingering.h"

#define LEASE_NS (100 * MFD_NS_PER_MS)

static int tcp_socket(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    NEED(fd >= 0);
    return fd;
}

/* A socket of "the program", here this process itself, of which a duplicate is leased. */
static int put(struct mfd_leases *leases, int fd, uint64_t now_ns)
{
    int own_fd = dup(fd);

    NEED(own_fd >= 0);
    mfd_leases_put(leases, own_fd, AF_INET, fd, now_ns);
    return own_fd;
}

static void a_lease_is_taken_once(void)
{
    struct mfd_leases leases = {0};
    MFD_CLOSE int fd = tcp_socket();
    int own_fd = put(&leases, fd, 5);
    int taken = -1;
    int domain = 0;

    CHECK_EQ(leases.n_held, 1);
    CHECK_EQ(mfd_leases_next_ns(&leases), 5 + LEASE_NS);
    CHECK_EQ(mfd_leases_take(&leases, getpid(), fd, &taken, &domain), 0);
    CHECK_EQ(taken, own_fd);
    CHECK_EQ(domain, AF_INET);
    CHECK(is_open(taken)); /* the caller's now */
    CHECK_EQ(leases.n_held, 0);
    CHECK_EQ(mfd_leases_next_ns(&leases), (long long)UINT64_MAX);
    CHECK_EQ(mfd_leases_take(&leases, getpid(), fd, &taken, &domain), -ENOENT);
    (void)close(taken);
}

static void the_file_counts_and_not_the_number(void)
{
    struct mfd_leases leases = {0};
    MFD_CLOSE int fd = tcp_socket();
    MFD_CLOSE int other = tcp_socket();
    MFD_CLOSE int moved = dup(fd);
    int own_fd = put(&leases, fd, 0);
    int taken = 77;
    int domain = 77;

    CHECK_EQ(mfd_leases_take(&leases, getpid(), moved, &taken, &domain), -ENOENT);
    NEED(dup2(other, fd) == fd); /* the number has gone to another file */
    CHECK_EQ(mfd_leases_take(&leases, getpid(), fd, &taken, &domain), -ENOENT);
    CHECK_EQ(taken, 77);
    CHECK(!mfd_leases_release_same(&leases, other));
    CHECK(mfd_leases_release_same(&leases, moved));
    CHECK(!is_open(own_fd));
    CHECK(!mfd_leases_release_same(&leases, moved));
    CHECK_EQ(leases.n_held, 0);
}

static void the_newest_of_two_under_one_number_is_found(void)
{
    struct mfd_leases leases = {0};
    MFD_CLOSE int fd = tcp_socket();
    MFD_CLOSE int next = tcp_socket();
    int old_fd = put(&leases, fd, 0);
    int new_fd;
    int taken;
    int domain;

    NEED(dup2(next, fd) == fd);
    new_fd = put(&leases, fd, 1);
    CHECK_EQ(mfd_leases_take(&leases, getpid(), fd, &taken, &domain), 0);
    CHECK_EQ(taken, new_fd);
    CHECK(is_open(old_fd));
    (void)close(taken);
    mfd_leases_drop_all(&leases);
    CHECK(!is_open(old_fd));
}

static void leases_expire_in_order(void)
{
    struct mfd_leases leases = {0};
    int fds[3];
    int own_fds[3];

    for (unsigned i = 0; i < 3; i++) {
        fds[i] = tcp_socket();
        own_fds[i] = put(&leases, fds[i], i * 10);
    }
    mfd_leases_expire(&leases, LEASE_NS - 1);
    CHECK_EQ(leases.n_held, 3);
    mfd_leases_expire(&leases, LEASE_NS);
    CHECK(!is_open(own_fds[0]));
    CHECK(is_open(own_fds[1]));
    CHECK_EQ(mfd_leases_next_ns(&leases), LEASE_NS + 10);
    mfd_leases_expire(&leases, LEASE_NS + 20);
    CHECK(!is_open(own_fds[1]));
    CHECK(!is_open(own_fds[2]));
    CHECK_EQ(leases.n_held, 0);
    for (unsigned i = 0; i < 3; i++) {
        CHECK(is_open(fds[i])); /* the program keeps its own */
        (void)close(fds[i]);
    }
}

static void holes_are_passed_over(void)
{
    struct mfd_leases leases = {0};
    int fds[5];
    int own_fds[5];
    int taken;
    int domain;

    for (unsigned i = 0; i < 5; i++) {
        fds[i] = tcp_socket();
        own_fds[i] = put(&leases, fds[i], i * 10);
    }
    CHECK(mfd_leases_release_same(&leases, fds[2]));
    CHECK_EQ(leases.n, 5);
    CHECK(mfd_leases_release_same(&leases, fds[1]));
    CHECK(mfd_leases_release_same(&leases, fds[0]));
    CHECK_EQ(mfd_leases_next_ns(&leases), LEASE_NS + 30); /* the holes in front are gone */
    CHECK_EQ(mfd_leases_take(&leases, getpid(), fds[4], &taken, &domain), 0);
    CHECK_EQ(taken, own_fds[4]);
    (void)close(taken);
    CHECK_EQ(leases.n, 1);
    mfd_leases_expire(&leases, LEASE_NS + 30);
    CHECK_EQ(leases.n, 0);
    CHECK(!is_open(own_fds[3]));
    for (unsigned i = 0; i < 5; i++)
        (void)close(fds[i]);
}

static void one_too_many_gives_up_the_oldest(void)
{
    struct mfd_leases leases = {0};
    MFD_CLOSE int fd = tcp_socket();
    int own_fds[MFD_LEASES_MAX + 2];
    unsigned before = count_open_fds();

    for (unsigned i = 0; i < MFD_LEASES_MAX; i++)
        own_fds[i] = put(&leases, fd, i);
    CHECK_EQ(count_open_fds(), before + MFD_LEASES_MAX);
    for (unsigned i = MFD_LEASES_MAX; i < MFD_COUNT(own_fds); i++) {
        own_fds[i] = put(&leases, fd, i);
        CHECK(!is_open(own_fds[i - MFD_LEASES_MAX]));
        CHECK_EQ(leases.n_held, MFD_LEASES_MAX);
        CHECK_EQ(mfd_leases_next_ns(&leases), LEASE_NS + 1 + i - MFD_LEASES_MAX);
    }
    mfd_leases_drop_all(&leases);
    CHECK_EQ(leases.n_held, 0);
    CHECK_EQ(count_open_fds(), before);
}

/* The ring goes round many times; what it counts is what is open. */
static void no_order_of_events_loses_an_fd(void)
{
    struct mfd_leases leases = {0};
    unsigned before = count_open_fds();
    uint32_t state = 4711;
    uint64_t now = 0;
    int fds[8];

    for (unsigned i = 0; i < MFD_COUNT(fds); i++)
        fds[i] = tcp_socket();
    for (unsigned step = 0; step < 4000; step++) {
        uint32_t chance = next_random(&state);
        int fd = fds[(chance >> 8) % MFD_COUNT(fds)];
        int taken;
        int domain;

        now += chance % 3 * MFD_NS_PER_MS;
        switch (chance % 8) {
        case 0:
            if (mfd_leases_take(&leases, getpid(), fd, &taken, &domain) == 0)
                (void)close(taken);
            break;
        case 1:
            (void)mfd_leases_release_same(&leases, fd);
            break;
        case 2:
            mfd_leases_expire(&leases, now);
            CHECK(mfd_leases_next_ns(&leases) > now);
            break;
        default:
            (void)put(&leases, fd, now);
        }
        CHECK(leases.n <= MFD_LEASES_MAX && leases.n_held <= leases.n);
        if (step % 64 == 0)
            CHECK_EQ(count_open_fds(), before + MFD_COUNT(fds) + leases.n_held);
    }
    mfd_leases_drop_all(&leases);
    for (unsigned i = 0; i < MFD_COUNT(fds); i++)
        (void)close(fds[i]);
    CHECK_EQ(count_open_fds(), before);
}

/* io_uring, where it is allowed, connects without being seen. */
static void what_was_connected_unseen_is_given_up_without_waiting(void)
{
    struct mfd_leases leases = {0};
    struct pair pair = lingering();

    (void)put(&leases, pair.client, 0);
    (void)close(pair.client); /* the program's; ours is the last */
    mfd_leases_drop_all(&leases);
    (void)close(pair.server);
}

int main(void)
{
    a_lease_is_taken_once();
    the_file_counts_and_not_the_number();
    the_newest_of_two_under_one_number_is_found();
    leases_expire_in_order();
    holes_are_passed_over();
    one_too_many_gives_up_the_oldest();
    no_order_of_events_loses_an_fd();
    what_was_connected_unseen_is_given_up_without_waiting();
    return check_result();
}
