/* A packet and its files arrive as they were sent, or not at all. */
#include <sys/resource.h>
#include <sys/stat.h>

#include "check.h"

#define SENT 0x12345678u
#define BYTES_MAX (2 * sizeof(uint32_t))

static int ends[2];

static void send_one(size_t size, size_t n_fds)
{
    const uint32_t data[2] = {SENT, ~SENT};
    int fds[MFD_CHANNEL_FDS];

    for (size_t i = 0; i < MFD_CHANNEL_FDS; i++)
        fds[i] = ends[0];
    CHECK_EQ(mfd_rights_send(ends[0], data, size, fds, n_fds, 0), 0);
}

/* Nothing stays open of it, unless n_fds says so. */
static ssize_t receive_one(size_t size, int *ret_fds, size_t *n_fds)
{
    const unsigned before = count_open_fds();
    uint32_t data[2] = {0};
    ssize_t n = mfd_rights_receive(ends[1], data, size, ret_fds, n_fds, MSG_DONTWAIT);

    CHECK_EQ(count_open_fds() - before, n < 0 ? 0 : *n_fds);
    if (n != 0 && n != -EAGAIN)
        CHECK_EQ(data[0], SENT);
    return n;
}

static bool is_the_one_sent(int fd)
{
    struct stat sent;
    struct stat received;

    NEED(fstat(ends[0], &sent) == 0);
    return fstat(fd, &received) == 0 && sent.st_ino == received.st_ino &&
           fcntl(fd, F_GETFD) == FD_CLOEXEC;
}

static void what_fits_is_received_in_full(void)
{
    for (size_t room = 0; room <= MFD_CHANNEL_FDS; room++) {
        for (size_t sent = 0; sent <= room; sent++) {
            int fds[MFD_CHANNEL_FDS];
            size_t n_fds = room;

            send_one(BYTES_MAX, sent);
            CHECK_EQ(receive_one(BYTES_MAX, fds, &n_fds), BYTES_MAX);
            CHECK_EQ(n_fds, sent);
            for (size_t i = 0; i < n_fds; i++) {
                CHECK(is_the_one_sent(fds[i]));
                (void)close(fds[i]);
            }
        }
    }
}

static void one_file_too_many_and_none_is_there(void)
{
    for (size_t room = 0; room < MFD_CHANNEL_FDS; room++) {
        for (size_t sent = room + 1; sent <= MFD_CHANNEL_FDS; sent++) {
            int fds[MFD_CHANNEL_FDS] = {-1, -1, -1, -1};
            size_t n_fds = room;

            send_one(BYTES_MAX, sent);
            CHECK_EQ(receive_one(BYTES_MAX, fds, &n_fds), -EMSGSIZE);
            CHECK_EQ(n_fds, room);
            CHECK_EQ(fds[0], -1);
        }
    }
}

static void a_long_packet_s_files_are_closed(void)
{
    int fds[MFD_CHANNEL_FDS];
    size_t n_fds = MFD_CHANNEL_FDS;

    send_one(BYTES_MAX, 2);
    CHECK_EQ(receive_one(sizeof(uint32_t), fds, &n_fds), -EMSGSIZE);
    send_one(sizeof(uint32_t), 0); /* the next is whole */
    CHECK_EQ(receive_one(BYTES_MAX, fds, &n_fds), sizeof(uint32_t));
    CHECK_EQ(n_fds, 0);
}

/* n_free numbers are fewer than files. */
static void a_file_without_a_number_is_told(void)
{
    struct rlimit limit;
    struct rlimit low;
    int highest = dup(ends[0]); /* all numbers below it are taken */

    NEED(highest > 0 && getrlimit(RLIMIT_NOFILE, &limit) == 0);
    low = limit;
    for (unsigned n_free = 0; n_free < MFD_CHANNEL_FDS; n_free++) {
        int fds[MFD_CHANNEL_FDS];
        size_t n_fds = MFD_CHANNEL_FDS;

        low.rlim_cur = (rlim_t)highest + 1 + n_free;
        send_one(BYTES_MAX, MFD_CHANNEL_FDS);
        NEED(setrlimit(RLIMIT_NOFILE, &low) == 0);
        CHECK_EQ(receive_one(BYTES_MAX, fds, &n_fds), -EMFILE);
        NEED(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    }
    (void)close(highest);
}

static void too_many_are_not_sent_nor_asked_for(void)
{
    const int fds[MFD_CHANNEL_FDS + 1] = {0};
    int received[MFD_CHANNEL_FDS];
    size_t n_fds = MFD_CHANNEL_FDS + 1;
    uint8_t byte = 0;

    CHECK_EQ(mfd_rights_send(ends[0], &byte, 1, fds, MFD_CHANNEL_FDS + 1, 0), -EINVAL);
    CHECK_EQ(mfd_rights_receive(ends[1], &byte, 1, received, &n_fds, MSG_DONTWAIT), -EINVAL);
    n_fds = 0;
    CHECK_EQ(mfd_rights_receive(ends[1], &byte, 1, received, &n_fds, MSG_DONTWAIT), -EAGAIN);
}

static void the_end_is_said(void)
{
    size_t n_fds = 1;
    int fd;

    (void)close(ends[0]);
    CHECK_EQ(receive_one(BYTES_MAX, &fd, &n_fds), 0);
    CHECK_EQ(n_fds, 0);
}

int main(void)
{
    NEED(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
    what_fits_is_received_in_full();
    one_file_too_many_and_none_is_there();
    a_long_packet_s_files_are_closed();
    a_file_without_a_number_is_told();
    too_many_are_not_sent_nor_asked_for();
    the_end_is_said();
    return check_result();
}
