/* SPDX-License-Identifier: MIT */
/*
 * siblings: share memory that has no name, by its descriptor.
 *
 *     giver                                               taker
 *     memfd_create(): 5 ----- SCM_RIGHTS, a socket -----> recvmsg(): 4
 *          |                                                   |
 *          +----- mmap ----> [ the same memory ] <---- mmap ---+
 *
 *     ./extra/siblings wait                  the taker is your shell
 *     ./extra/siblings give /tmp/meet
 *     ./extra/siblings take /tmp/meet        in another terminal
 *
 * memfd_create(2), unix(7), cmsg(3), and "File Sealing" in fcntl(2)
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
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
static int as_file, read_only; /* --tmpfile, --readonly */
enum { SIZE = 128 };

static enum { FORK, WAIT, GIVE, TAKE } role;
static const char *path; /* where giver and taker meet */

/* A message is one byte, with room for one descriptor beside it. */
static char byte;
static struct iovec data = {&byte, 1};
static _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
static struct msghdr message = {.msg_iov = &data,
                                .msg_iovlen = 1,
                                .msg_control = control,
                                .msg_controllen = sizeof control};

static int fork_taker(void);
static int meet(void);
static int create_memory(void);
static int receive_memory(int peer);
static void wait_for_shell(int fd, char *note);
static void give(int peer, int fd, char *note);
static void take(int peer, int fd, char *note);
static void parse_options(int argc, char *argv[]);

int main(int argc, char *argv[])
{
    parse_options(argc, argv);
    setvbuf(stdout, NULL, _IOLBF, 0);
    int peer = -1;
    if (role == FORK) peer = fork_taker();
    if (path != NULL) peer = meet();

    const int fd = role == TAKE ? receive_memory(peer) : create_memory();
    char *note = mmap(NULL, SIZE, prot, flags, fd, 0);
    if (note == MAP_FAILED && role == TAKE) {
        warn("descriptor %d: mmap to write", fd);
        prot = PROT_READ;
        note = mmap(NULL, SIZE, prot, flags, fd, 0);
    }
    if (note == MAP_FAILED) err(1, "descriptor %d: mmap", fd);

    if (role == WAIT) wait_for_shell(fd, note);
    if (role == GIVE) give(peer, fd, note);
    if (role == TAKE) take(peer, fd, note);
    if (ferror(stdout) || fclose(stdout) == EOF)
        errx(1, "writing to stdout failed");
}

static int fork_taker(void)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == -1) err(1, "socketpair");
    const pid_t child = fork();
    if (child == -1) err(1, "fork");
    role = child == 0 ? TAKE : GIVE;
    close(ends[role == TAKE]);
    return ends[role == GIVE];
}

static int meet(void)
{
    /* A name that begins with a zero byte is not in the file system. */
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "%s", path);
    const struct sockaddr *name = (struct sockaddr *)&address;
    const socklen_t length = sizeof address.sun_family + 1 + strlen(path);
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd == -1) err(1, "socket");
    if (role == TAKE && connect(fd, name, length) == -1)
        err(1, "%s: start siblings give first", path);
    if (role == TAKE) return fd;

    if (bind(fd, name, length) == -1) err(1, "%s: bind", path);
    if (listen(fd, 1) == -1) err(1, "%s: listen", path);
    printf("[giver] waits for a taker at %s\n", path);
    const int peer = accept(fd, NULL, NULL);
    if (peer == -1) err(1, "%s: accept", path);
    return peer;
}

static int create_memory(void)
{
    const int fd = as_file ? open("/tmp", O_TMPFILE | O_RDWR, 0600)
                           : memfd_create("note", MFD_ALLOW_SEALING);
    if (fd == -1) err(1, "%s", as_file ? "/tmp" : "memfd_create");
    errno = posix_fallocate(fd, 0, SIZE);
    if (errno != 0) err(1, "posix_fallocate");
    if (!as_file && fcntl(fd, F_ADD_SEALS, seals) == -1) err(1, "F_ADD_SEALS");
    return fd;
}

/* If the memory shrinks, the next access raises SIGBUS. A seal prevents that,
   but only a memfd can be sealed. */
static int receive_memory(int peer)
{
    int fd;
    if (recvmsg(peer, &message, MSG_CMSG_CLOEXEC) == -1) err(1, "recvmsg");
    const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header == NULL || header->cmsg_len != CMSG_LEN(sizeof fd))
        errx(1, "the giver did not send one descriptor");
    memcpy(&fd, CMSG_DATA(header), sizeof fd);

    if (lseek(fd, 0, SEEK_END) < SIZE) errx(1, "descriptor %d: too short", fd);
    const int found = fcntl(fd, F_GET_SEALS);
    if (!as_file && (found == -1 || !(found & F_SEAL_SHRINK)))
        errx(1, "descriptor %d: could shrink: refused without --tmpfile", fd);
    return fd;
}

/* No socket: any process of this user can open the descriptor in /proc. */
static void wait_for_shell(int fd, char *note)
{
    strcpy(note, "memories are for sharing\n");
    printf("[giver] waits for Enter; see /proc/%d/fd/%d\n", getpid(), fd);
    getchar();
    printf("[giver] reads '%.*s'\n", SIZE, note);
}

static void give(int peer, int fd, char *note)
{
    /* From now on no new mapping can be writable. The giver's is older. */
    if (read_only && fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) == -1)
        err(1, "a seal against writes");
    strcpy(note, "memories are for sharing");

    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    printf("[giver] sends descriptor %d, mapped at %p\n", fd, (void *)note);
    if (sendmsg(peer, &message, MSG_NOSIGNAL) == -1) err(1, "sendmsg");

    if (recv(peer, &byte, 1, 0) != 1) errx(1, "the taker hung up");
    printf("[giver] reads '%.*s'\n", SIZE, note);
}

static void take(int peer, int fd, char *note)
{
    printf("[taker] has descriptor %d, mapped at %p\n", fd, (void *)note);
    printf("[taker] reads '%.*s'\n", SIZE, note);
    if (prot & PROT_WRITE) strcpy(note, "thank you");
    if (send(peer, &byte, 1, MSG_NOSIGNAL) == -1) err(1, "send");
}

static void parse_options(int argc, char *argv[])
{
    const struct option options[] = {{"readonly", no_argument, &read_only, 1},
                                     {"tmpfile", no_argument, &as_file, 1},
                                     {NULL, 0, NULL, 0}};
    int option = 0;
    while (option == 0)
        option = getopt_long_only(argc, argv, "", options, NULL);

    const char *word = argc > optind ? argv[optind] : "";
    if (argc == optind + 2) path = argv[optind + 1];
    if (strcmp(word, "wait") == 0 && argc == optind + 1) role = WAIT;
    if (strcmp(word, "give") == 0 && path != NULL) role = GIVE;
    if (strcmp(word, "take") == 0 && path != NULL) role = TAKE;
    if (option == '?' || (role == FORK && argc > optind))
        errx(2, "usage: siblings [--tmpfile|--readonly] [wait|give PATH|take "
                "PATH]");
}
