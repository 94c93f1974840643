-- Tells postrider what happens in mailboxes: new, read, flagged and removed messages, and mailboxes that come and go.
-- For Dovecot 2.3.17 or later with its push_notification_lua plugin; needs nothing else. How to set it up: README.md,
-- "The fast lane for Dovecot".
--
-- What Dovecot is doing never fails because of this: errors are logged, and no answer is waited for longer than
-- timeout_ms. postrider finds by IMAP what it was not told.

local timeout_ms = 500
-- Happenings in one request: a client may flag ten thousand messages at once.
local batch_max = 50

local client, settings = nil, {}

-- Dovecot 2.4 hands over the script's own settings; in 2.3 they stand in its plugin section.
function script_init(given)
  if type(given) == 'table' then settings = given end
  return 0
end

-- JSON ------------------------------------------------------------------------------------------------------------

local escapes = { ['"'] = '\\"', ['\\'] = '\\\\', ['\n'] = '\\n', ['\r'] = '\\r', ['\t'] = '\\t' }

local function quoted(text)
  if utf8 ~= nil and utf8.len(text) == nil then
    -- JSON is UTF-8. Mail is not always.
    text = text:gsub('[\128-\255]', '?')
  end
  return '"' .. text:gsub('[%z\1-\31\127"\\]', function(c)
    return escapes[c] or string.format('\\u%04x', c:byte())
  end) .. '"'
end

local function json(value)
  if type(value) == 'number' then return string.format('%d', value) end
  if type(value) ~= 'table' then return quoted(tostring(value)) end
  local parts = {}
  if value[1] ~= nil or next(value) == nil then
    for _, item in ipairs(value) do parts[#parts + 1] = json(item) end
    return '[' .. table.concat(parts, ',') .. ']'
  end
  for key, item in pairs(value) do parts[#parts + 1] = quoted(key) .. ':' .. json(item) end
  return '{' .. table.concat(parts, ',') .. '}'
end

-- Sending ---------------------------------------------------------------------------------------------------------

local function send(ctx, happenings)
  if client == nil then
    client = dovecot.http.client({ request_timeout = timeout_ms, request_absolute_timeout = timeout_ms,
      connect_timeout = timeout_ms, max_attempts = 1 })
  end
  local request = client:request({ url = ctx.url, method = 'POST' })
  request:add_header('Authorization', 'Bearer ' .. ctx.secret)
  request:add_header('Content-Type', 'application/json')
  request:set_payload(json(happenings))
  local response = request:submit()
  local status = response:status()
  if status < 200 or status > 299 then
    error('postrider answered ' .. status .. ' ' .. response:reason())
  end
end

-- How many messages a mailbox has, and how many nobody has read. nil where it cannot be said.
local function counts(ctx, mailbox)
  local known, status = pcall(function()
    local box = ctx.user:mailbox(mailbox)
    box:sync()
    local status = box:status(dovecot.storage.STATUS_MESSAGES, dovecot.storage.STATUS_UNSEEN)
    box:free()
    return status
  end)
  if known then return status end
end

function dovecot_lua_notify_begin_txn(user)
  local url = settings.postrider_url or user:plugin_getenv('postrider_url')
  local secret = settings.postrider_secret or user:plugin_getenv('postrider_secret')
  return { user = user, name = user.username, url = url, secret = secret, happenings = {} }
end

function dovecot_lua_notify_end_txn(ctx, success)
  -- Of what was rolled back, nothing happened.
  if not success or ctx.url == nil or ctx.secret == nil or #ctx.happenings == 0 then return end
  local seen, batch = {}, {}
  for at, happening in ipairs(ctx.happenings) do
    local folder = happening.folder
    if happening['imap-uid'] ~= nil then
      if seen[folder] == nil then seen[folder] = counts(ctx, folder) or {} end
      happening.messages, happening.unseen = seen[folder].messages, seen[folder].unseen
    end
    batch[#batch + 1] = happening
    if #batch == batch_max or at == #ctx.happenings then
      local sent, problem = pcall(send, ctx, batch)
      if not sent then
        dovecot.i_error('postrider was not told: ' .. tostring(problem))
        return
      end
      batch = {}
    end
  end
end

-- What happens ----------------------------------------------------------------------------------------------------

local function note(ctx, event, more)
  local happening = { user = ctx.name, event = event.name, folder = event.mailbox,
    ['imap-uidvalidity'] = event.uid_validity, ['imap-uid'] = event.uid }
  for key, value in pairs(more or {}) do happening[key] = value end
  ctx.happenings[#ctx.happenings + 1] = happening
end

-- System flags and keywords in one list: all of a new message, else those that changed.
local function flags(event)
  local all = {}
  for _, list in ipairs({ event.flags or {}, event.keywords or {} }) do
    for _, flag in ipairs(list) do all[#all + 1] = flag end
  end
  return all
end

local function note_message(ctx, event)
  note(ctx, event, { from = event.from, subject = event.subject, snippet = event.snippet, flags = flags(event),
    ['message-id'] = event.message_id })
end

dovecot_lua_notify_event_message_new = note_message
dovecot_lua_notify_event_message_append = note_message
dovecot_lua_notify_event_message_expunge = note
dovecot_lua_notify_event_message_read = note
dovecot_lua_notify_event_message_trash = note

function dovecot_lua_notify_event_flags_set(ctx, event)
  note(ctx, event, { flags = flags(event) })
end
dovecot_lua_notify_event_flags_clear = dovecot_lua_notify_event_flags_set

dovecot_lua_notify_event_mailbox_create = note
dovecot_lua_notify_event_mailbox_delete = note
dovecot_lua_notify_event_mailbox_subscribe = note
dovecot_lua_notify_event_mailbox_unsubscribe = note

function dovecot_lua_notify_event_mailbox_rename(ctx, event)
  note(ctx, event, { ['old-folder'] = event.mailbox_old })
end
