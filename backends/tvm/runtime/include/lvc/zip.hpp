// The zip that an artefact is: its directory, and its entries with their sums. No byte of it is trusted.
#ifndef LVC_ZIP_HPP
#define LVC_ZIP_HPP

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "inflate.hpp"
#include "memory.hpp"
#include "span.hpp"
#include "status.hpp"

namespace lvc::detail {

using file_bytes = span<const std::uint8_t>;

inline std::uint32_t number(const std::uint8_t *at, unsigned bytes) {
  std::uint32_t value = 0;
  for (unsigned i = 0; i < bytes; i++) value |= std::uint32_t{at[i]} << 8 * i;
  return value;
}

using crc_table = std::array<std::array<std::uint32_t, 256>, 8>;

/// What a byte adds to a CRC-32 with none to seven bytes behind it.
constexpr crc_table make_crc_table() {
  crc_table table{};
  for (std::uint32_t byte = 0; byte < 256; byte++) {
    std::uint32_t sum = byte;
    for (int bit = 0; bit < 8; bit++) sum = (sum >> 1) ^ (sum & 1 ? 0xEDB88320u : 0u);
    table[0][byte] = sum;
  }
  for (std::size_t behind = 1; behind < 8; behind++)
    for (std::size_t byte = 0; byte < 256; byte++) {
      std::uint32_t sum = table[behind - 1][byte];
      table[behind][byte] = (sum >> 8) ^ table[0][sum & 255];
    }
  return table;
}

inline std::uint32_t crc32(file_bytes of) {
  static constexpr crc_table table = make_crc_table();
  std::uint32_t sum = ~std::uint32_t{0};
  std::size_t place = 0;
  for (; of.size() - place >= 8; place += 8) {
    std::uint32_t low = sum ^ number(&of[place], 4), high = number(&of[place + 4], 4);
    sum = table[7][low & 255] ^ table[6][low >> 8 & 255] ^ table[5][low >> 16 & 255] ^ table[4][low >> 24] ^
          table[3][high & 255] ^ table[2][high >> 8 & 255] ^ table[1][high >> 16 & 255] ^ table[0][high >> 24];
  }
  for (; place < of.size(); place++) sum = (sum >> 8) ^ table[0][(sum ^ of[place]) & 255];
  return ~sum;
}

struct zip_entry {
  std::string name;
  std::size_t start;  // of its header
  file_bytes packed;  // as it lies in the file
  std::size_t size;   // made whole
  std::uint32_t crc;
  bool is_deflated;
};

/// Make an entry whole in memory of its size.
inline status unpack(const zip_entry &entry, span<std::uint8_t> to) {
  if (!entry.is_deflated && !to.empty()) std::memcpy(to.data(), entry.packed.data(), to.size());
  if (entry.is_deflated && !inflate(entry.packed, to)) return damaged("'" + entry.name + "' cannot be inflated");
  if (crc32({to.data(), to.size()}) != entry.crc) return damaged("the sum of '" + entry.name + "' is wrong");
  return {};
}

/// Reads the directory of a zip of plain files that another reader cannot take for anything else: no parts, no zip64,
/// no encryption, no text behind it, plain names, no name twice, nothing overlaps, the two headers of an entry agree.
class zip_directory {
 public:
  explicit zip_directory(file_bytes file) : file_(file) {}

  status read(std::vector<zip_entry> &entries) {
    static const char *const no_zip = "it does not begin and end as a zip does";
    if (file_.size() < end_bytes || number(file_.data(), 4) != 0x04034B50) return damaged(no_zip);
    const std::uint8_t *end = file_.end() - end_bytes;
    if (number(end, 4) != 0x06054B50 || number(end + 20, 2)) return damaged(no_zip);
    if (file_.size() > most_file_bytes) return damaged("it is larger than 4 GB");
    if (number(end + 4, 4) || number(end + 8, 2) != number(end + 10, 2)) return damaged("it is in several parts");
    std::size_t count = number(end + 10, 2), size = number(end + 12, 4);
    begin_ = number(end + 16, 4);
    if (count > most_entries) return damaged("it has too many entries");
    if (begin_ > file_.size() - end_bytes || size != file_.size() - end_bytes - begin_)
      return damaged("its directory is not where it should be");
    status found;
    std::size_t place = begin_;
    for (std::size_t i = 0; i < count && found.ok(); i++) found = read_entry(place, entries);
    if (!found.ok()) return found;
    if (place != file_.size() - end_bytes) return damaged("its directory has another length");
    return check(entries);
  }

 private:
  static constexpr std::size_t end_bytes = 22, central_bytes = 46, local_bytes = 30;
  static constexpr std::size_t most_entries = 64, most_expansion = 64;

  status read_entry(std::size_t &place, std::vector<zip_entry> &entries) {
    std::size_t limit = file_.size() - end_bytes;
    if (limit - place < central_bytes || number(&file_[place], 4) != 0x02014B50)
      return damaged("its directory is cut off");
    const std::uint8_t *at = &file_[place];
    std::size_t name_bytes = number(at + 28, 2), rest = name_bytes + number(at + 30, 2) + number(at + 32, 2);
    if (rest > limit - place - central_bytes) return damaged("its directory is cut off");
    place += central_bytes + rest;
    zip_entry entry;
    entry.name.assign(reinterpret_cast<const char *>(at) + central_bytes, name_bytes);
    if (!is_plain(entry.name)) return damaged("an entry has no plain name");
    unsigned flags = number(at + 8, 2), method = number(at + 10, 2);
    if (flags & ~0x800u) return damaged("'" + entry.name + "' is encrypted, or written in a way that is not known");
    if (method != 0 && method != 8) return damaged("'" + entry.name + "' is compressed in a way that is not known");
    entry.is_deflated = method == 8;
    entry.crc = number(at + 16, 4);
    std::size_t packed = number(at + 20, 4), local = number(at + 42, 4);
    entry.size = number(at + 24, 4);
    if (packed == 0xFFFFFFFF || entry.size == 0xFFFFFFFF || local == 0xFFFFFFFF)
      return damaged("'" + entry.name + "' is larger than 4 GB (zip64)");
    if (!entry.is_deflated && packed != entry.size) return damaged("'" + entry.name + "' has two sizes");
    return read_local(at, local, packed, entry, entries);
  }

  /// The header before an entry says the same as the directory, and what it heads lies before the directory.
  status read_local(const std::uint8_t *central, std::size_t local, std::size_t packed, zip_entry &entry,
                    std::vector<zip_entry> &entries) {
    std::size_t name_bytes = entry.name.size();
    if (local > begin_ || begin_ - local < local_bytes + name_bytes || number(&file_[local], 4) != 0x04034B50)
      return damaged("'" + entry.name + "' is not where the directory says");
    const std::uint8_t *at = &file_[local];
    bool is_same = !std::memcmp(at + 6, central + 8, 4) && !std::memcmp(at + 14, central + 16, 12) &&
                   number(at + 26, 2) == name_bytes && !std::memcmp(at + local_bytes, entry.name.data(), name_bytes);
    if (!is_same) return damaged("the two headers of '" + entry.name + "' differ");
    std::size_t head = local_bytes + name_bytes + number(at + 28, 2);
    if (head > begin_ - local || packed > begin_ - local - head)
      return damaged("'" + entry.name + "' reaches into the directory");
    entry.start = local;
    entry.packed = file_.part(local + head, packed);
    entries.push_back(std::move(entry));
    return {};
  }

  status check(std::vector<zip_entry> &entries) const {
    std::uint64_t total = 0;
    for (const zip_entry &entry : entries) {
      total += entry.size;
      auto is_alike = [&](const zip_entry &other) { return other.name == entry.name; };
      if (std::count_if(entries.begin(), entries.end(), is_alike) > 1)
        return damaged("two entries are called '" + entry.name + "'");
    }
    if (total > most_expansion * std::uint64_t{file_.size()})
      return damaged("its entries are more than " + std::to_string(most_expansion) + " times as large as the file");
    std::sort(entries.begin(), entries.end(), [](auto &one, auto &other) { return one.start < other.start; });
    for (std::size_t i = 1; i < entries.size(); i++)
      if (entries[i - 1].packed.end() > file_.data() + entries[i].start)
        return damaged("'" + entries[i - 1].name + "' overlaps '" + entries[i].name + "'");
    return {};
  }

  static bool is_plain(const std::string &name) {
    auto is_fine = [](char c) {
      bool is_letter = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
      return is_letter || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
    };
    return !name.empty() && name.size() <= 100 && name[0] != '.' && std::all_of(name.begin(), name.end(), is_fine);
  }

  file_bytes file_;
  std::size_t begin_ = 0;  // of the directory
};

}  // namespace lvc::detail
#endif
