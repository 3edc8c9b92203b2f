/* SPDX-License-Identifier: MIT */
/*
 * siblings: share memory that has no name, by its descriptor.
 *
 *     giver                                               taker
 *     memfd_create(): 5 ----- SCM_RIGHTS, a socket -----> recvmsg(): 4
 *          |                                                   |
 *          +----- mmap ----> [ the same memory ] <---- mmap ---+
 *
 *     ./extra/siblings                    no socket: your shell is the taker
 *     ./extra/siblings give meet &        the socket's name is meet
 *     ./extra/siblings take meet
 *
 * memfd_create(2), unix(7), cmsg(3), and "File Sealing" in fcntl(2)
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <getopt.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* To experiment, change these lines or use the options. */
static int prot = PROT_READ | PROT_WRITE;
static int flags = MAP_SHARED;
static int seals = F_SEAL_SHRINK | F_SEAL_GROW;
static int read_only, as_file; /* --readonly, --tmpfile */

static enum { WAIT, GIVE, TAKE } role;
static const char *name; /* of the socket */

static const char text[] = "memories are for sharing\n";
enum { SIZE = sizeof text - 1 };

/* A message is one byte, with room for one descriptor beside it. */
static char byte;
static struct iovec data = {&byte, 1};
static _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
static struct msghdr message = {.msg_iov = &data,
                                .msg_iovlen = 1,
                                .msg_control = control,
                                .msg_controllen = sizeof control};

static void parse_options(int argc, char *argv[]);
static void give(void);
static void take(void);
static int create_memory(void);
static void wait_for_shell(int fd);
static void send_descriptor(int peer, int fd);
static int receive_descriptor(int peer);
static int open_socket(void);

int main(int argc, char *argv[])
{
    parse_options(argc, argv);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (role == TAKE) take();
    if (role != TAKE) give();
    if (ferror(stdout) || fclose(stdout) == EOF)
        errx(1, "writing to stdout failed");
}

static void give(void)
{
    const int peer = role == GIVE ? open_socket() : -1;
    const int fd = create_memory();
    char *note = mmap(NULL, SIZE, prot, flags, fd, 0);
    if (note == MAP_FAILED) err(1, "descriptor %d: mmap", fd);
    /* From now on no new shared mapping can be writable. */
    if (read_only && fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) == -1)
        err(1, "descriptor %d: F_ADD_SEALS", fd);
    memcpy(note, text, SIZE);
    printf("[giver] has descriptor %d, mapped at %p\n", fd, (void *)note);

    if (role == GIVE)
        send_descriptor(peer, fd);
    else
        wait_for_shell(fd);
    printf("[giver] reads: %.*s", SIZE, note);
}

/* If the memory shrinks, an access raises SIGBUS. A seal prevents that. */
static void take(void)
{
    const int peer = open_socket();
    const int fd = receive_descriptor(peer);
    const int found = fcntl(fd, F_GET_SEALS);
    if (found == -1 || !(found & F_SEAL_SHRINK))
        errx(1, "descriptor %d: the memory can shrink; seal its size", fd);
    if (lseek(fd, 0, SEEK_END) < SIZE) errx(1, "descriptor %d: too short", fd);

    char *note = mmap(NULL, SIZE, prot, flags, fd, 0);
    if (note == MAP_FAILED && prot & PROT_WRITE) {
        warn("descriptor %d: mmap with PROT_WRITE", fd);
        prot = PROT_READ;
        note = mmap(NULL, SIZE, prot, flags, fd, 0);
    }
    if (note == MAP_FAILED) err(1, "descriptor %d: mmap", fd);
    printf("[taker] has descriptor %d, mapped at %p\n", fd, (void *)note);
    printf("[taker] reads: %.*s", SIZE, note);
    if (prot & PROT_WRITE) memcpy(note, "MEMORIES", 8);
    if (send(peer, &byte, 1, MSG_NOSIGNAL) == -1) err(1, "send");
}

static int create_memory(void)
{
    const int fd = as_file ? open("/dev/shm", O_TMPFILE | O_RDWR, 0600)
                           : memfd_create("note", MFD_ALLOW_SEALING);
    if (fd == -1) err(1, "%s", as_file ? "/dev/shm" : "memfd_create");
    const int error = posix_fallocate(fd, 0, SIZE);
    if (error != 0) errx(1, "posix_fallocate: %s", strerror(error));
    if (!as_file && fcntl(fd, F_ADD_SEALS, seals) == -1) err(1, "F_ADD_SEALS");
    return fd;
}

/* Any process of this user can open the descriptor in /proc. */
static void wait_for_shell(int fd)
{
    printf("[giver] waits for Enter; see /proc/%d/fd/%d\n", getpid(), fd);
    getchar();
}

/* The descriptor is sent in a control message, beside the data. */
static void send_descriptor(int peer, int fd)
{
    struct cmsghdr *header = (struct cmsghdr *)control;
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    if (sendmsg(peer, &message, MSG_NOSIGNAL) == -1) err(1, "sendmsg");
    if (recv(peer, &byte, 1, 0) != 1) errx(1, "the taker hung up");
}

static int receive_descriptor(int peer)
{
    int fd;
    if (recvmsg(peer, &message, MSG_CMSG_CLOEXEC) == -1) err(1, "recvmsg");
    const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header == NULL || header->cmsg_len != CMSG_LEN(sizeof fd))
        errx(1, "the giver must send exactly one descriptor");
    memcpy(&fd, CMSG_DATA(header), sizeof fd);
    return fd;
}

/* An abstract name begins with a zero byte, and is in no directory. Any process
   on this machine can connect to it. */
static int open_socket(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const socklen_t size = offsetof(struct sockaddr_un, sun_path) + 1 +
                           snprintf(address.sun_path + 1, 100, "%s", name);
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd == -1) err(1, "socket");
    /* A giver that was started with & might need a moment. */
    int tries = 100;
    while (role == TAKE && connect(fd, (void *)&address, size) == -1) {
        if (tries-- == 0) err(1, "%s: start siblings give first", name);
        usleep(10000);
    }
    if (role == TAKE) return fd;

    if (bind(fd, (void *)&address, size) == -1) err(1, "%s: bind", name);
    if (listen(fd, 1) == -1) err(1, "%s: listen", name);
    printf("[giver] waits for a taker at %s\n", name);
    const int peer = accept(fd, NULL, NULL);
    if (peer == -1) err(1, "%s: accept", name);
    return peer;
}

static void parse_options(int argc, char *argv[])
{
    static const char usage[] =
        "usage: siblings [--readonly | --tmpfile] [give NAME | take NAME]";
    const struct option options[] = {{"readonly", no_argument, &read_only, 1},
                                     {"tmpfile", no_argument, &as_file, 1},
                                     {NULL, 0, NULL, 0}};
    int option = 0;
    while (option == 0)
        option = getopt_long_only(argc, argv, "", options, NULL);
    if (option == '?') errx(2, "%s", usage);
    if (optind == argc) return;

    if (strcmp(argv[optind], "give") == 0) role = GIVE;
    if (strcmp(argv[optind], "take") == 0) role = TAKE;
    if (role == WAIT || optind + 2 != argc) errx(2, "%s", usage);
    name = argv[optind + 1];
}
